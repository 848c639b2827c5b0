"""Signed files: models and checkpoints become bytes, and are verified before they are read."""
