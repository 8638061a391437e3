"""Means, slopes and token losses with intervals that are robust to alike values within a group.

Shape letters: N values, G groups.
"""

import dataclasses
import math
from collections.abc import Hashable, Iterable, Sequence

import numpy as np
from scipy.special import stdtrit  # type: ignore[import-untyped]

from alignlab.stats.groups import Floats, grouped
from alignlab.stats.interval import Interval


def mean_interval(values: Iterable[float | None], groups: Iterable[Hashable] | None = None) -> Interval:
    """Mean and 95 % t-interval; with groups, the mean of the group means, each group counting once.

    The interval is None where the data do not tell it: fewer than two groups (or values), or no spread between them.
    It never has zero width. Shares have an interval of their own, `share_interval`.

    Args:
        values: one number each; None and NaN are unknown, and are left out and counted as `missing`.
        groups: the group of each value, e.g. its prompt's id.

    Raises:
        ValueError: if groups has another length than values, or a value is infinite.
    """
    data = grouped(values, groups)
    n, num_groups = len(data.values_N), len(data.names)
    if not n:
        return Interval(None, None, None, 0, data.missing, 0)
    means_G = data.means_G
    mean, half = float(means_G.mean()), t_half_width(means_G)
    bounds = None if half is None else (mean - half, mean + half)
    return Interval.of(mean, bounds, n, missing=data.missing, groups=num_groups)


def t_half_width(means_G: Floats) -> float | None:
    """Half the 95 % t-interval of a mean of (G,) values; None for one, or where the spread is no more than rounding."""
    num_groups = len(means_G)
    if num_groups < 2 or np.ptp(means_G) <= 1e-12 * np.abs(means_G).max():
        return None
    return float(stdtrit(num_groups - 1, 0.975) * means_G.std(ddof=1) / math.sqrt(num_groups))


def clustered_ratio(numerators_G: Floats, denominators_G: Floats, *, n: int) -> Interval:
    """Sum of numerators over sum of denominators, with the cluster-robust t-interval of a ratio.

    Leaving each group out in turn (the jackknife) and the t-quantile with G-1 degrees of freedom keep it honest for few
    groups of unequal size; for equal denominators it is the t-interval of a mean.

    Args:
        numerators_G: one sum a group.
        denominators_G: one sum a group; their total must not be 0.
        n: number of values.

    Source: Bell and McCaffrey 2002, Survey Methodology 28(2), the jackknife (CR3).
    """
    num_groups, total = len(numerators_G), float(denominators_G.sum())
    ratio = float(numerators_G.sum()) / total
    if num_groups < 2:
        return Interval(ratio, None, None, n, groups=num_groups)
    rest_G = 1 - denominators_G / total
    if not (np.abs(rest_G) > 1e-9).all():  # one group holds everything
        return Interval(ratio, None, None, n, groups=num_groups)
    left_out_G = (numerators_G - ratio * denominators_G) / rest_G
    spread = math.sqrt((num_groups - 1) / num_groups * float(np.square(left_out_G).sum()))
    half = float(stdtrit(num_groups - 1, 0.975)) * spread / abs(total)
    bounds = (ratio - half, ratio + half) if half > 1e-12 * abs(ratio) else None
    return Interval.of(ratio, bounds, n, groups=num_groups)


def ratio_interval(numerators: Iterable[float], denominators: Iterable[float], groups: Iterable[Hashable]) -> Interval:
    """Sum of one kind of values over the sum of another, e.g. KL a token, with its interval over groups.

    Args:
        numerators: one number each.
        denominators: their weights, >= 0; their sum must be > 0.
        groups: the group of each.
    """
    data, weights = grouped(numerators, groups), np.asarray(list(denominators), dtype=np.float64)
    return clustered_ratio(data.sums_G(), data.sums_G(weights), n=len(data.values_N))


def clustered_slope(y: Iterable[float], x: Iterable[float], groups: Iterable[Hashable]) -> Interval:
    """Slope of y on x through the origin, with a cluster-robust t-interval; unknown where x is 0 everywhere.

    Args:
        y: a value each.
        x: a value each.
        groups: of each value, e.g. its prompt.

    Raises:
        ValueError: if the three have different lengths, or a value is infinite.
    """
    keys = list(groups)
    data, across_N = grouped(x, keys), np.asarray(list(y), dtype=np.float64)
    if len(across_N) != len(data.values_N) or not np.isfinite(across_N).all():
        raise ValueError(f"x and y: must be known numbers of one length, are {len(data.values_N)} and {len(across_N)}")
    power_G = data.sums_G(np.square(data.values_N))
    if not power_G.sum() > 0:
        return Interval(None, None, None, len(across_N), groups=len(data.names))
    return clustered_ratio(data.sums_G(data.values_N * across_N), power_G, n=len(across_N))


def token_loss(logps: Sequence[float], lengths: Sequence[int], groups: Sequence[Hashable]) -> Interval:
    """Minus log-probability a token over all texts together, nats, with its interval over prompts.

    Args:
        logps: log-probability of each text, nats.
        lengths: its tokens, > 0.
        groups: its prompt.
    """
    data = grouped(logps, groups)
    return clustered_ratio(-data.sums_G(), data.sums_G(np.asarray(lengths, dtype=np.float64)), n=len(data.values_N))


def perplexity(loss: Interval) -> Interval:
    """Exp of the loss, and of its interval's ends."""
    mean, low, high = (None if value is None else math.exp(value) for value in (loss.mean, loss.low, loss.high))
    return dataclasses.replace(loss, mean=mean, low=low, high=high)
