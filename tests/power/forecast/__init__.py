"""tests.power.forecast"""
