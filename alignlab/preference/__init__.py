"""Log-probabilities, their cache, the tilted reference and the trainer."""
