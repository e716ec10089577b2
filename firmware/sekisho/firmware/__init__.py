"""Releases of the box's own programs, engine and system: built and signed at the centre, tried and kept on the box."""
