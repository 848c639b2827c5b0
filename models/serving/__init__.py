"""What a service answers, from one checkpoint, and keeps: predictions wait for their labels."""
