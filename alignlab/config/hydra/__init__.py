"""Hydra's plumbing: composition, overrides, messages, help."""
