"""Shadows: versions of the registry that answer every request too, and are never served."""
