"""A thermal model of each device, and the forecast of a job on it."""
