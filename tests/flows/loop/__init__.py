"""tests.flows.loop"""
