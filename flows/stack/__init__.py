"""Processes that thermodrift manages: Prefect servers, workers, and their databases."""
