"""tests.observability.core"""
