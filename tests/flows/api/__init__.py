"""Tests of flows.api."""
