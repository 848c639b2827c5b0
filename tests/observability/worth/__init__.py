"""tests.observability.worth"""
