"""Ranked responses to learn course correction from."""
