"""One retrain: admission, the watched fit, the comparison, and the request's outcome."""
