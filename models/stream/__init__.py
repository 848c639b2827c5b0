"""Streams: sources of records, batches of them, and schema inference."""
