"""Each distinct token once: scoring, sampling, and the cache of scores."""
