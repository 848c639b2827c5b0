"""Has the world changed, and is a retrain worth it? Policies, and the adapter of evidently."""
