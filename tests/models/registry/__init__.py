"""tests.models.registry"""
