"""tests.models.prediction_log"""
