"""tests.flows.stack"""
