"""tests.flows.retraining"""
