"""Losses, trainers, callbacks, launch and sharding."""
