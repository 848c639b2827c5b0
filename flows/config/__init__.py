"""What users set: the pipeline file, the environment, overrides, and the reference of both."""
