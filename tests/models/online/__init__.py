"""tests.models.online"""
