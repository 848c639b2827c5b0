"""Adapters that read a device, limit its power, or reserve it for one job."""
