"""tests.observability.drift"""
