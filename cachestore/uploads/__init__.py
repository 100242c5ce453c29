"""How pending operations reach the remote; `uploader` is the room in front."""
