"""tests.flows.learning"""
