"""Learning, the drift check, and the replay of rejected records."""
