"""The whole loop in one process, and the summary of its run."""
