"""What a service answers, from one checkpoint."""
