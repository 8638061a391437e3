"""Log-probabilities over packed prefix trees."""
