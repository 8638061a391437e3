"""One interval for every share: accuracy, agreement, well-formed, Corr@k, refusals.

Korn and Graubard's: Clopper-Pearson's exact binomial interval at the effective number of values, which says how many
independent ones would tell as much as the clustered ones do. It stays within 0 and 1, always has width, and knows its
groups. Where fewer than `FEW` groups are other than all-no (or all-yes) the design effect cannot be estimated, so each
group then counts as one value. Decision 0011 holds the coverage of this and of what was there before.

Shape letters: W simulated worlds or other leading axes, G groups, N values.

Source: Korn and Graubard 1998, Survey Methodology 24(2); used for NCHS's data presentation standards, 2017.
"""

import math
from collections.abc import Hashable, Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy.special import betaincinv, ndtri, stdtrit  # type: ignore[import-untyped]

from alignlab.stats.groups import Floats, grouped
from alignlab.stats.interval import Interval

FEW = 10
"""Groups that must differ before the clusters' design effect is estimated."""


def share_interval(values: Iterable[float | None], groups: Iterable[Hashable] | None = None) -> Interval:
    """Share of yes, with its 95 % interval; with groups, the mean of the groups' shares, each counting once.

    Args:
        values: each within 0 and 1 (True, False, or a part, as a tie's half); None and NaN are unknown, and are left
            out and counted as `missing`.
        groups: the group of each value, e.g. its prompt's id.

    Raises:
        ValueError: if a value is not within 0 and 1, or groups has another length than values.
    """
    data = grouped(values, groups)
    if ((data.values_N < 0) | (data.values_N > 1)).any():
        raise ValueError(f"values: must be within 0 and 1, reach {data.values_N.min():g} and {data.values_N.max():g}")
    num_groups, n = len(data.names), len(data.values_N)
    if not n:
        return Interval(None, None, None, 0, data.missing, 0)
    return _interval(data.means_G, np.ones(num_groups), n=n, missing=data.missing)


def pair_accuracy(margins: ArrayLike, groups: Iterable[Hashable]) -> Interval:
    """Share of pairs whose preferred response scores higher, a tie counting half; interval over prompts.

    Args:
        margins: score of the preferred minus the other response of every pair.
        groups: the prompt of every pair.
    """
    margins_N = np.asarray(margins)
    return share_interval(np.where(margins_N == 0, 0.5, margins_N > 0).tolist(), groups)


def pooled_share(yes: ArrayLike, scored: ArrayLike, *, n: int | None = None, missing: int = 0) -> Interval:
    """Sum of yes over sum of scored, each value counting once, with its 95 % interval over groups.

    Args:
        yes: (G,) how many of each group's values are yes, or the sum of their weights.
        scored: (G,) how many are known, or the sum of their weights; a group with none is left out.
        n: number of known values, where these are weights.
        missing: number of unknown values, for the record.
    """
    yes_G, scored_G = np.asarray(yes, dtype=np.float64), np.asarray(scored, dtype=np.float64)
    yes_G, scored_G = yes_G[scored_G > 0], scored_G[scored_G > 0]
    if not len(scored_G):
        return Interval(None, None, None, 0, missing, 0)
    return _interval(yes_G, scored_G, n=round(float(scored_G.sum())) if n is None else n, missing=missing)


def _interval(yes_G: Floats, of_G: Floats, *, n: int, missing: int) -> Interval:
    found = effective(yes_G, of_G, num_values=n)
    share = float(found.share)
    if len(yes_G) < 2:
        return Interval(share, None, None, n, missing, len(yes_G))
    low, high = found.bounds()
    return Interval(share, float(low), float(high), n, missing, len(yes_G))


@dataclass(frozen=True)
class EffectiveShare:
    """Shares with the number of independent values that would tell as much, shape (W,) each or numbers."""

    share: Floats
    n: Floats

    def bounds(self, level: float = 0.95) -> tuple[Floats, Floats]:
        """Clopper and Pearson's interval of `n * share` yes among `n`."""
        tail, yes, no = (1 - level) / 2, self.share * self.n, (1 - self.share) * self.n
        tiny = 1e-9  # betaincinv wants > 0; these ends are 0 and 1 anyway
        low = np.where(yes <= tiny, 0.0, betaincinv(np.maximum(yes, tiny), no + 1, tail))
        high = np.where(no <= tiny, 1.0, betaincinv(yes + 1, np.maximum(no, tiny), 1 - tail))
        return low, high


def effective(yes_WG: Floats, of_WG: Floats, *, num_values: int | Floats, level: float = 0.95) -> EffectiveShare:
    """The share of yes and its effective number of values.

    Args:
        yes_WG: yes of each group, from 0 to `of`.
        of_WG: what each group counts, > 0.
        num_values: values behind all groups, which the effective number cannot exceed; (W,) or one for all.
        level: of the interval; few groups estimate the design effect poorly, and the more so for a high level.
    """
    total_W, num_groups = of_WG.sum(-1), yes_WG.shape[-1]
    share_W = yes_WG.sum(-1) / total_W
    residuals_WG = yes_WG - share_W[..., None] * of_WG
    variance_W = np.square(residuals_WG).sum(-1) / np.square(total_W)
    spread_W = share_W * (1 - share_W)
    told_W = np.divide(spread_W, variance_W, out=np.full_like(share_W, np.inf), where=variance_W > 0)
    differing_W = np.minimum((yes_WG > 0).sum(-1), (yes_WG < of_WG).sum(-1))
    tail = (1 + level) / 2
    freedom_W = np.maximum(differing_W - 1, 1)  # groups without a yes tell nothing of how groups differ
    told_W = told_W * np.square(stdtrit(np.maximum(num_values - 1, 1), tail) / stdtrit(freedom_W, tail))
    like_groups_W = np.square(total_W) / np.square(of_WG).sum(-1)
    few_W = (differing_W < FEW) | (num_values <= num_groups)
    told_W = np.where(few_W, like_groups_W, np.minimum(told_W, num_values))
    return EffectiveShare(share_W, told_W)


def groups_needed(share: Interval, *, chance: float = 0.5, nearest: float = 0.05, power: float = 0.8) -> int | None:
    """Groups that would tell a share from chance with this power, if it is as far from chance as it looks.

    Args:
        share: as measured; None is returned where nothing is known of it.
        chance: what it is told from.
        nearest: the least distance from chance that is asked about: a share nearer than that takes it instead.
        power: probability of an interval that leaves chance out.
    """
    if share.mean is None or not share.groups:
        return None
    distance = max(abs(share.mean - chance), nearest)
    expected = min(max(share.mean, 1 - share.mean, chance + distance), 1.0)
    spread = float(ndtri(0.975)) * math.sqrt(chance * (1 - chance)) + float(ndtri(power)) * math.sqrt(
        expected * (1 - expected)
    )
    return max(math.ceil((spread / distance) ** 2 * _groups_a_value(share)), 6)


def _groups_a_value(share: Interval) -> float:
    """Groups that tell as much as one independent value; below 1 where a group holds several that differ."""
    if share.half_width is None or share.mean is None or not share.groups:
        return 1.0
    spread = share.mean * (1 - share.mean)
    alone = float(ndtri(0.975)) ** 2 * spread / max(share.half_width, 1e-6) ** 2
    return min(share.groups / alone, 1.0) if alone > 0 else 1.0
