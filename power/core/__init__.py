"""Readings of devices, and the gate's configuration."""
