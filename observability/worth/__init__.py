"""Is a retrain worth its cost: the policy, the learning curve, and what past retrains brought."""
