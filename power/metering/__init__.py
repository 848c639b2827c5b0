"""Measurements of a job: energy, power and heat."""
