"""What is promised in figures, measured: each file prints one line of JSON."""
