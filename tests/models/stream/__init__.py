"""tests.models.stream"""
