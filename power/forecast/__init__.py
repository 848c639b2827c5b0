"""A thermal model of each device, and the forecast of a job's heat on it."""
