"""tests.models.stream.parsing"""
