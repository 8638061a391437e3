"""What a policy is worth on held-out prompts."""
