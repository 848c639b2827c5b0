"""tests.models.serving"""
