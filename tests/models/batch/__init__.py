"""tests.models.batch"""
