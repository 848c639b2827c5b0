"""What people see of a pipeline: the page of the service, the report, and their pictures."""
