"""Values by group: known ones, group sums, and bootstrap draws of whole groups.

Shape letters: N values, G groups, R bootstrap draws.
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from alignlab.stats.interval import Bounds

Floats = NDArray[np.float64]

NUM_RESAMPLES = 2000
"""Bootstrap draws: the ends of a 95 % interval are then known to about a fiftieth of its width."""


@dataclass(frozen=True)
class Grouped:
    """Known values with the index of their group; groups in the order of their first value."""

    values_N: Floats
    index_N: NDArray[np.intp]
    names: tuple[Hashable, ...]
    """Of the G groups."""
    missing: int
    """Values that are unknown and left out."""

    @property
    def counts_G(self) -> Floats:
        """Known values of each group, shape (G,)."""
        return np.bincount(self.index_N, minlength=len(self.names)).astype(np.float64)

    def sums_G(self, values_N: Floats | None = None) -> Floats:
        """Sum of each group's values, or of others beside them, shape (G,)."""
        weights_N = self.values_N if values_N is None else values_N
        sums_G: Floats = np.bincount(self.index_N, weights=weights_N, minlength=len(self.names)).astype(np.float64)
        return sums_G

    @property
    def means_G(self) -> Floats:
        """Mean of each group, shape (G,)."""
        return self.sums_G() / self.counts_G


def grouped(values: Iterable[float | None], groups: Iterable[Hashable] | None) -> Grouped:
    """Known values and their groups; None and NaN are unknown. Without groups each value is its own.

    Raises:
        ValueError: if groups has another length than values, or a value is infinite.
    """
    all_values = list(values)
    keys: list[Hashable] = list(range(len(all_values))) if groups is None else list(groups)
    if len(keys) != len(all_values):
        raise ValueError(f"groups: must hold one entry a value, holds {len(keys)} for {len(all_values)}")
    known = [
        (key, float(value)) for key, value in zip(keys, all_values, strict=True) if value is not None and value == value
    ]
    if any(math.isinf(value) for _, value in known):
        raise ValueError("values: must be finite or unknown (None, NaN), one is infinite")
    names = {key: index for index, key in enumerate(dict.fromkeys(key for key, _ in known))}
    return Grouped(
        values_N=np.array([value for _, value in known], dtype=np.float64),
        index_N=np.array([names[key] for key, _ in known], dtype=np.intp),
        names=tuple(names),
        missing=len(all_values) - len(known),
    )


def bootstrap_weights(num_groups: int, *, seed: int, resamples: int = NUM_RESAMPLES) -> Floats:
    """How often each of G groups is drawn in a bootstrap with replacement, shape (R, G).

    Args:
        num_groups: G.
        seed: of the draws.
        resamples: R.
    """
    if not num_groups:
        return np.zeros((resamples, 0))
    rng = np.random.default_rng(seed)
    return rng.multinomial(num_groups, np.full(num_groups, 1 / num_groups), size=resamples).astype(np.float64)


def percentile_bounds(draws_R: Floats) -> Bounds:
    """The middle 95 % of draws; None where no draw has a value."""
    if np.isnan(draws_R).all():
        return None
    low, high = np.nanpercentile(draws_R, [2.5, 97.5])
    return float(low), float(high)
