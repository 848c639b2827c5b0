"""A simulated device, and the comparison of admission policies on it."""
