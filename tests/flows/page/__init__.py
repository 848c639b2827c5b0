"""Tests of the pages, the report, and their pictures."""
