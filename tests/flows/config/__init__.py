"""tests.flows.config"""
