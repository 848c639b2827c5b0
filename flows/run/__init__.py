"""One run of one pipeline: what it is given, what it knows and writes, and what it counts."""
