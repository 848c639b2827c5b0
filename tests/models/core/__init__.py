"""tests.models.core"""
