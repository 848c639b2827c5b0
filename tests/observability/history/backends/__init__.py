"""tests.observability.history.backends"""
