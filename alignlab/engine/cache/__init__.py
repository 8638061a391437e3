"""Scores that depend on weights and tokens alone, kept once for all runs."""
