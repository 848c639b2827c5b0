"""tests.flows.cli"""
