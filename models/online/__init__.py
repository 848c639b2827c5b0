"""Models that learn record by record, and the stacking of all members."""
