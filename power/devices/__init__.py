"""Adapters: what reads a device, limits its power, or reserves it."""
