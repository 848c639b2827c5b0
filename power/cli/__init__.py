"""The commands of the power gate."""
