"""tests.observability.history"""
