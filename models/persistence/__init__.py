"""Signed files: how models and checkpoints become bytes, and are verified before they are read."""
