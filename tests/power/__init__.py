"""Tests of the power room."""
