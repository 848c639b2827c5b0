"""Tests of the benchmarks: small, they count what they say they count."""
