"""Tests of the flows: the whole loop, its recovery, its commands."""
