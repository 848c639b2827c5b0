"""tests.models.persistence"""
