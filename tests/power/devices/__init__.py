"""Tests of the adapters that read and change devices."""
