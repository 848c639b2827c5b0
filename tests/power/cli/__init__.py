"""tests.power.cli"""
