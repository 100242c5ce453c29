"""Large objects read block by block: what is asked for comes first, and stays."""
