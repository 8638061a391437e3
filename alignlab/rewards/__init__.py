"""Anything that scores responses."""
