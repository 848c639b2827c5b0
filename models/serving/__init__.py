"""Predicts rows from one checkpoint of a pipeline, for whoever asks over a network."""
