"""What a job took: energy, power and heat."""
