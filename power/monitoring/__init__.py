"""Follows live devices in a thread while a run goes on."""
