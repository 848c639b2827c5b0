"""Tests of the story: what is read, and what is answered."""
