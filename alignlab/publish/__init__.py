"""A finished front for other people's tools: an Optuna study, inspect logs, a model card, a repository on the hub."""
