"""Examples: pipelines to try, and monitoring to copy."""
