"""Embedded worlds whose true rewards are known."""
