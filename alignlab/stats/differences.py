"""Paired differences and Holm's correction: two policies on the same prompts, compared prompt by prompt.

Shape letters: W simulated worlds, G groups.
"""

from collections.abc import Hashable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy.special import stdtr, stdtrit  # type: ignore[import-untyped]

from alignlab.stats.groups import Floats, grouped
from alignlab.stats.interval import Interval
from alignlab.stats.shares import FEW, effective

LEVEL = 0.05
"""Of Holm's p-values, below which two sides are told apart."""


@dataclass(frozen=True)
class Difference:
    """After minus before on the groups that both have, and the two-sided p-value of no difference."""

    interval: Interval
    p: float | None
    left_out: int = 0
    """Groups that only one of both has."""
    p_holm: float | None = None
    """The p-value after Holm's correction for every difference that was looked at beside this one."""

    def as_record(self) -> dict[str, object]:
        """The shape of a metric in result.json, with the p-values beside it."""
        record = {**self.interval.as_record(), "p": self.p, "left_out": self.left_out}
        return record if self.p_holm is None else {**record, "p_holm": self.p_holm}


def paired_difference(
    before: tuple[Sequence[float | None], Sequence[Hashable]],
    after: tuple[Sequence[float | None], Sequence[Hashable]],
    *,
    shares: bool = False,
) -> Difference:
    """Mean over the shared groups of (group mean after) - (group mean before), with an interval that has width.

    A t-interval over the groups' differences. Where fewer than FEW groups differ from the most common difference, a
    t-interval is too narrow or has no width; then gains and losses each get the interval of a share of `span`, joined
    as Newcombe joins two shares (MOVER). None below two shared groups, and where all values are one number.

    Args:
        before: values and their groups; None and NaN are unknown.
        after: the same of the other policy.
        shares: whether values are within 0 and 1; else their span is the range of what was seen.
    """
    old, new = grouped(*before), grouped(*after)
    old_means, new_means = (dict(zip(data.names, data.means_G.tolist(), strict=True)) for data in (old, new))
    shared = [name for name in old.names if name in new_means]
    left_out = len(set(old.names) ^ set(new.names))
    missing = old.missing + new.missing
    counts = [dict(zip(data.names, data.counts_G.tolist(), strict=True)) for data in (old, new)]
    n = sum(int(count[name]) for count in counts for name in shared)
    if not shared:
        return Difference(Interval(None, None, None, 0, missing, 0), None, left_out)
    differences_G = np.array([new_means[name] - old_means[name] for name in shared])
    span = 1.0 if shares else float(np.ptp(np.concatenate([old.values_N, new.values_N])))
    mean = float(differences_G.mean())
    unknown = Interval(mean, None, None, n, missing, len(shared))
    if len(shared) < 2 or not span > 0:
        return Difference(unknown, None, left_out)
    low, high = difference_bounds(differences_G[None], span=span)
    return Difference(replace(unknown, low=float(low[0]), high=float(high[0])), _p_value(differences_G, span), left_out)


def difference_bounds(differences_WG: Floats, *, span: float, level: float = 0.95) -> tuple[Floats, Floats]:
    """Both ends of the interval of each world's mean difference, shape (W,) each.

    Args:
        differences_WG: each group's difference, within -span and span.
        span: the greatest difference that a group can have, > 0.
        level: of the interval.
    """
    num_groups, differing_W = differences_WG.shape[1], _num_differing(differences_WG)
    mean_W, freedom_W = differences_WG.mean(1), np.maximum(differing_W - 1, 1)
    half_W = stdtrit(freedom_W, (1 + level) / 2) * differences_WG.std(1, ddof=1) / np.sqrt(num_groups)
    low_W, high_W = _mover(differences_WG / span, level)
    few_W = differing_W < FEW
    return (
        np.where(few_W, low_W * span, np.maximum(mean_W - half_W, -span)),
        np.where(few_W, high_W * span, np.minimum(mean_W + half_W, span)),
    )


def _num_differing(differences_WG: Floats) -> NDArray[np.intp]:
    """Groups whose difference is not the most common one of their world, shape (W,); all where none is repeated."""
    num_worlds, num_groups = differences_WG.shape
    sorted_WG = np.sort(differences_WG.round(12), axis=1)
    run_WG = np.zeros((num_worlds, num_groups), dtype=np.intp)  # index of each run of equal differences
    run_WG[:, 1:] = (np.diff(sorted_WG, axis=1) > 0).cumsum(axis=1)
    flat = (run_WG + num_groups * np.arange(num_worlds)[:, None]).ravel()
    lengths_WG = np.bincount(flat, minlength=num_worlds * num_groups).reshape(num_worlds, num_groups)
    most_W = lengths_WG.max(axis=1)
    return np.asarray(np.where(most_W > 1, num_groups - most_W, num_groups))


def _mover(parts_WG: Floats, level: float) -> tuple[Floats, Floats]:
    """Interval of gains minus losses, each a share with its own interval.

    Source: Newcombe 1998, Statistics in Medicine 17, method 10, with the shares' own intervals in Wilson's place.
    """
    gains_WG, losses_WG = np.maximum(parts_WG, 0), np.maximum(-parts_WG, 0)
    gain_W, loss_W = gains_WG.mean(1), losses_WG.mean(1)
    num_groups = parts_WG.shape[1]
    (gain_low, gain_high), (loss_low, loss_high) = (
        effective(part, np.ones_like(part), num_values=num_groups, level=level).bounds(level)
        for part in (gains_WG, losses_WG)
    )
    scale_W = gains_WG.std(1) * losses_WG.std(1)
    together_W = (gains_WG * losses_WG).mean(1) - gain_W * loss_W
    alike_W = np.divide(together_W, scale_W, out=np.zeros_like(scale_W), where=scale_W > 0)
    middle_W = gain_W - loss_W

    def reach(first: Floats, second: Floats) -> Floats:
        squared: Floats = np.square(first) + np.square(second) - 2 * alike_W * first * second
        return np.sqrt(np.maximum(squared, 0))

    low_W = middle_W - reach(gain_W - gain_low, loss_high - loss_W)
    high_W = middle_W + reach(gain_high - gain_W, loss_W - loss_low)
    return np.maximum(low_W, -1), np.minimum(high_W, 1)


def _p_value(differences_G: Floats, span: float) -> float:
    """Two-sided p-value of no difference: one minus the greatest level whose interval leaves 0 out."""
    differing = int(_num_differing(differences_G[None])[0])
    if differing >= FEW:
        error = differences_G.std(ddof=1) / np.sqrt(len(differences_G))
        return float(2 * stdtr(differing - 1, -abs(differences_G.mean()) / error))
    least, most = 1e-6, 1.0
    for _ in range(30):  # bisection in the logarithm: p-values are small numbers
        tried = float(np.sqrt(least * most))
        low, high = difference_bounds(differences_G[None], span=span, level=1 - tried)
        least, most = (least, tried) if low[0] > 0 or high[0] < 0 else (tried, most)
    return most


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """Holm's step-down p-values, in the order given; an unknown one stays unknown and is not counted.

    Source: Holm 1979, Scandinavian Journal of Statistics 6(2).
    """
    known = sorted((p, index) for index, p in enumerate(p_values) if p is not None)
    found: list[float | None] = [None] * len(p_values)
    least = 0.0
    for rank, (p, index) in enumerate(known):
        least = max(least, min(1.0, (len(known) - rank) * p))
        found[index] = least
    return found


def records_by_holm(differences: Sequence[Difference]) -> list[dict[str, object]]:
    """The differences as records, with Holm's p-value among all of them and whether it tells the two sides apart.

    `told_apart` is null where the p-value is unknown, which is not the same as "no".
    """
    corrected = holm([one.p for one in differences])
    return [
        {**one.as_record(), "p_holm": p, "told_apart": None if p is None else p < LEVEL}
        for one, p in zip(differences, corrected, strict=True)
    ]
