"""tests.power.monitoring"""
