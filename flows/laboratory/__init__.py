"""A laboratory that ships with the product: it shows by figures what the defaults do."""
