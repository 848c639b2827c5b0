"""The history: its rows, its outbox, its schema and its retention."""
