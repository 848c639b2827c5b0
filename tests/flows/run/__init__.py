"""Tests of one run and what it keeps."""
