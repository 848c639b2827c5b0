"""Learning from the stream, and checking it for drift."""
