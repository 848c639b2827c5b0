"""The story of a pipeline: ten questions, and their answers from the history."""
