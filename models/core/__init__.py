"""Values and functions that all packages of models share."""
