"""Models that are fitted on a window of the past, and their comparison."""
