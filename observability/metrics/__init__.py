"""Figures for Prometheus: their definitions, their values, and how these leave the process."""
