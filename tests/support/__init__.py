"""Helpers that several tests share: servers that fail, small models, the real command."""
