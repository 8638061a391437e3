"""Simulated worlds whose truth is known, to count how often an interval covers it.

Shape letters: W worlds, G groups.
"""

import numpy as np

RATES = (0.02, 0.05, 0.1, 0.5, 0.9, 0.95, 0.98)
WORLDS = 1000
LEAST = 0.93
"""A true coverage of .95 is counted as less than this in 2 of 1,000 cells of so many worlds; the seeds are fixed."""


def rates_WG(rng, rate, icc, num_groups, worlds=WORLDS):
    """Each group's own rate: beta-distributed with this mean and intraclass correlation."""
    if icc == 0:
        return np.full((worlds, num_groups), rate)
    size = 1 / icc - 1
    return rng.beta(rate * size, (1 - rate) * size, size=(worlds, num_groups))


def covered(bounds, truth):
    """Share of the worlds whose interval holds the truth."""
    low_W, high_W = bounds
    return float(np.mean((low_W <= truth) & (truth <= high_W)))


def below(found, least=LEAST):
    """The cells of a grid that cover less often."""
    return {cell: share for cell, share in found.items() if share < least}
