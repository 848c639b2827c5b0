"""Tests of the values that all packages of power share."""
