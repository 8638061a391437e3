"""Base models, tokenizers, adapters."""
