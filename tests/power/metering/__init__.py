"""tests.power.metering"""
