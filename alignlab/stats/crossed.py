"""Means over prompts and seeds together, and shares of yes: their intervals, and the chance that they reach a value.

Every seed's policy answers the same prompts, so both are drawn anew in another study. With FEWEST_SEEDS seeds or more
the squared error is that of the prompts plus what the seeds add to it; below, that of the prompts alone, for the mean
of the seeds at hand.

Shape letters: L leading axis (points that are looked at together), K seeds, P prompts.
"""

from dataclasses import dataclass

import numpy as np
from scipy.special import betainc, stdtr, stdtrit  # type: ignore[import-untyped]

from alignlab.stats.groups import Floats
from alignlab.stats.shares import EffectiveShare, effective

FEWEST_SEEDS = 3
"""Seeds from which their spread is estimated; of two it is too poorly known for an interval of any use."""


@dataclass(frozen=True)
class Estimate:
    """Means, shape (L,), with what their squared error is made of. No interval (NaN) where nothing varies."""

    mean_L: Floats
    prompts_L: Floats
    """Squared error from the prompts."""
    prompts_df: int
    seeds_L: Floats
    """Squared error that the seeds add; 0 where it is not estimated."""
    seeds_df: int
    share: EffectiveShare | None = None
    """The same means as shares of yes, whose interval has width also at 0 and 1."""

    def bounds(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Both ends of the interval; of shares over several seeds the outer ends of the share's and the mean's.

        The critical value is the two parts' t-quantiles, weighed by their squared errors.

        Source: Cochran and Cox 1957, Experimental Designs, 4.14, for two variances of different degrees of freedom.
        """
        tail, squared_L = (1 + level) / 2, self.prompts_L + self.seeds_L
        quantile_L = self._weighed(stdtrit(self.prompts_df, tail), stdtrit(self.seeds_df, tail))
        half_L = np.where(squared_L > 0, quantile_L * np.sqrt(squared_L), np.nan)
        low_L, high_L = self.mean_L - half_L, self.mean_L + half_L
        if self.share is None:
            return low_L, high_L
        low, high = self.share.bounds(level)
        if not self.seeds_L.any():
            return low, high
        return np.clip(np.fmin(low, low_L), 0, 1), np.clip(np.fmax(high, high_L), 0, 1)

    def chance_at_least(self, value: float) -> Floats:
        """Chance that the true mean is at least a value, given these data and a flat prior; NaN where unknown.

        A share's is by Jeffreys' prior. Over several seeds it is the one of both that is less certain.
        """
        error_L = np.sqrt(self.prompts_L + self.seeds_L)
        z_L = np.divide(self.mean_L - value, error_L, out=np.full_like(error_L, np.nan), where=error_L > 0)
        of_mean_L = self._weighed(stdtr(self.prompts_df, z_L), stdtr(self.seeds_df, z_L))
        if self.share is None:
            return of_mean_L
        yes, no = self.share.share * self.share.n, (1 - self.share.share) * self.share.n
        of_share_L = np.asarray(1 - betainc(yes + 0.5, no + 0.5, np.clip(value, 0, 1)), dtype=np.float64)
        if value <= 0 or value > 1:
            of_share_L = np.full_like(of_share_L, float(value <= 0))
        if not self.seeds_L.any():
            return of_share_L
        surer_L = np.abs(of_share_L - 0.5) > np.abs(of_mean_L - 0.5)
        return np.where(surer_L, of_mean_L, of_share_L)

    def _weighed(self, of_prompts: Floats, of_seeds: Floats) -> Floats:
        """Two numbers weighed by the parts' squared errors; the prompts' where neither has one."""
        squared_L = self.prompts_L + self.seeds_L
        part_L = np.divide(self.seeds_L, squared_L, out=np.zeros_like(squared_L), where=squared_L > 0)
        return np.where(part_L > 0, part_L * of_seeds, 0.0) + (1 - part_L) * of_prompts


def crossed_means(values_LKP: Floats, *, share_of: int | Floats | None = None) -> Estimate:
    """Means over seeds and prompts.

    Args:
        values_LKP: each seed's mean on each prompt, (L, K, P); two prompts or more.
        share_of: number of values that are yes or no behind each mean, (L,) or one for all; None where they are no
            shares.

    Raises:
        ValueError: for fewer than two prompts.
    """
    num_points, num_seeds, num_prompts = values_LKP.shape
    if num_prompts < 2:
        raise ValueError(f"values of shape {values_LKP.shape}: must hold two prompts or more")
    means_LP = values_LKP.mean(axis=1)
    mean_L = means_LP.mean(axis=1)
    prompts_L = _without_rounding(means_LP.var(axis=1, ddof=1) / num_prompts, means_LP)
    seeds_L = np.zeros(num_points)
    if num_seeds >= FEWEST_SEEDS:
        of_seed_LK = values_LKP.mean(axis=2)
        residuals_LKP = values_LKP - of_seed_LK[:, :, None] - means_LP[:, None, :] + mean_L[:, None, None]
        freedom = (num_seeds - 1) * (num_prompts - 1)
        both_L = np.square(residuals_LKP).sum(axis=(1, 2)) / freedom / (num_seeds * num_prompts)
        seeds_L = np.maximum(of_seed_LK.var(axis=1, ddof=1) / num_seeds - both_L, 0)
        seeds_L = _without_rounding(seeds_L, means_LP)
    share = None
    if share_of is not None:
        yes_LP = np.clip(means_LP, 0, 1)
        share = effective(yes_LP, np.ones_like(yes_LP), num_values=share_of)
    return Estimate(mean_L, prompts_L, num_prompts - 1, seeds_L, max(num_seeds - 1, 1), share)


def _without_rounding(squared_L: Floats, means_LP: Floats) -> Floats:
    """0 in place of a squared error that is no more than rounding."""
    return np.where(squared_L > np.square(1e-12 * np.abs(means_LP).max(axis=1)), squared_L, 0.0)
