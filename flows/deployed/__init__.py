"""What a Prefect server runs: four flows, their leases, states, events and deadlines."""
