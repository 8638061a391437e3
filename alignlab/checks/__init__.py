"""What is refused before torch is imported."""
