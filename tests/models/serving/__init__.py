"""Tests of models.serving."""
