"""From runs to a Pareto front."""
