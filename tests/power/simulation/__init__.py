"""tests.power.simulation"""
