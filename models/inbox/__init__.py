"""The inbox: predictions of a service that wait for their labels, and examples that have one."""
