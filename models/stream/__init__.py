"""Streams: sources of records, batches of them, and the schema that a sample tells."""
