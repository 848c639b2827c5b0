"""tests.power.policy"""
