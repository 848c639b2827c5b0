"""The history: rows, the outbox before it, its schema and its retention."""
