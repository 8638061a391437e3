"""alignlab: balance a language model's helpfulness and safety, and see what the balance costs."""

__version__ = "0.1.0"
