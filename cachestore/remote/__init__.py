"""Remotes: where files are kept for good, behind one protocol."""
