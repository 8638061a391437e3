"""Numbers about a front: dominance, hypervolume, distance to the exact front, and obedience to w.

Everything here is maximised: higher is better on every axis. N points, M objectives (the axes), K points of an exact
front. Read hypervolume second: it depends on its reference point, rewards crowded points, and can exceed that of the
exact front, which maximises w.r - beta*KL and not an area. The distance to the optimum at each w says more.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike, NDArray

from alignlab.front.exact import exact_point

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class ExactCurve:
    """The exact front at K weightings, as `exact_point` finds it; give 30 or more for a line that looks smooth."""

    axes: tuple[str, ...]
    """Names of the M metrics, in the order of the columns."""
    weights_KM: Floats
    means_KM: Floats
    """Mean reward on each axis, reward units."""
    kl_K: Floats
    """KL(pi_w || pi_ref), nats."""

    def __post_init__(self) -> None:
        """Refuse arrays that do not belong together."""
        shape = (len(self.kl_K), len(self.axes))
        if self.weights_KM.shape != shape or self.means_KM.shape != shape:
            raise ValueError(
                f"exact front: weights {self.weights_KM.shape} and means {self.means_KM.shape} must both be {shape}"
            )

    def index_of(self, weights: Sequence[float]) -> int | None:
        """The row of these weights (to 1e-6), or None where the curve was not worked out there."""
        if len(weights) != len(self.axes):
            return None
        gaps_K = np.abs(self.weights_KM - np.asarray(weights, dtype=np.float64)).max(axis=1)
        return int(gaps_K.argmin()) if len(gaps_K) and gaps_K.min() < 1e-6 else None


def exact_curve(
    rewards: ArrayLike, *, weights: Iterable[Sequence[float]], beta: float, axes: Sequence[str], min_ess: float = 50.0
) -> ExactCurve:
    """The exact front over several weightings, from (P, S, M) gold rewards of samples of pi_ref.

    Args:
        rewards: of samples of pi_ref, (P, S, M).
        weights: a weighting each.
        beta: KL strength, reward units a nat.
        axes: names of the rewards.
        min_ess: fewest effective samples of a weighting.

    Raises:
        ValueError: as `exact_point` does, e.g. where too few samples carry a weighting.
    """
    rows = [tuple(map(float, row)) for row in weights]
    points = [exact_point(rewards, weights=row, beta=beta, min_ess=min_ess) for row in rows]
    return ExactCurve(
        axes=tuple(axes),
        weights_KM=np.array(rows, dtype=np.float64).reshape(len(rows), len(axes)),
        means_KM=np.array([point.means_M for point in points], dtype=np.float64).reshape(len(rows), len(axes)),
        kl_K=np.array([point.kl for point in points], dtype=np.float64),
    )


def non_dominated(values: ArrayLike) -> NDArray[np.bool_]:
    """Which of the (N, M) points no other point dominates, shape (N,).

    A point dominates another if it is at least as good on every axis and better on one, with no slack; equal points
    do not dominate each other, so ties are kept. Sampling error is not looked at: neighbours may be tied in truth.

    Raises:
        ValueError: if a value is not finite or the shape is not (N, M).
    """
    values_NM = _finite_points(values, "values")
    if not len(values_NM):
        return np.zeros(0, dtype=np.bool_)
    import moocore  # type: ignore[import-untyped]

    return np.asarray(moocore.is_nondominated(values_NM, maximise=True, keep_weakly=True), dtype=np.bool_)


@dataclass(frozen=True)
class Hypervolume:
    """A hypervolume with the point that it is measured from; a number without that point cannot be compared."""

    volume: float
    """In the product of the axes' units."""
    reference: tuple[float, ...]
    num_inside: int
    """Number of points better than the reference on every axis; only these count."""


def hypervolume(values: ArrayLike, *, reference: Sequence[float]) -> Hypervolume:
    """The volume between the reference point and the (N, M) points, higher is better on every axis.

    Two choices of reference serve (store whichever was taken, and share it between the sets compared): the reference
    policy's own point, which counts only points that improve on it everywhere, or a fixed corner such as `nadir`.

    Raises:
        ValueError: if a value is not finite, or the reference has another number of axes than the points.
    """
    values_NM = _finite_points(values, "values")
    corner_M = np.asarray(reference, dtype=np.float64)
    if corner_M.shape != values_NM.shape[1:] or not np.isfinite(corner_M).all():
        raise ValueError(f"reference={tuple(reference)}: must hold {values_NM.shape[1]} finite numbers, one an axis")
    inside_NM = values_NM[(values_NM > corner_M).all(axis=1)]
    point = tuple(corner_M.tolist())
    if not len(inside_NM):
        return Hypervolume(0.0, point, 0)
    import moocore

    return Hypervolume(float(moocore.hypervolume(inside_NM, ref=corner_M, maximise=True)), point, len(inside_NM))


def nadir(values: ArrayLike) -> tuple[float, ...]:
    """The worst value on each axis among the non-dominated of (N, M) points; a corner to measure hypervolume from.

    Take it from the exact front, or from one fixed set: a corner taken from each set anew makes volumes incomparable.
    """
    values_NM = _finite_points(values, "values")
    if not len(values_NM):
        raise ValueError("values: must hold at least one point")
    return tuple(values_NM[non_dominated(values_NM)].min(axis=0).tolist())


@dataclass(frozen=True)
class FrontDistance:
    """How far a set of points falls short of an exact front, in the axes' units; 0 is none."""

    epsilon: float
    """Least amount that, added to every axis of every point, lets the set cover the exact front. Below 0: beyond it."""
    igd_plus: float
    """Mean over the exact front of the distance that the nearest point still lacks (IGD+)."""


def distance_to_exact(values: ArrayLike, *, exact: ArrayLike) -> FrontDistance:
    """Additive epsilon and IGD+ from (N, M) points to a (K, M) exact front.

    Both grow with gaps between the points, not only with their shortfall, so compare sets at the same w's: give the
    exact front at those w's. IGD+ rather than IGD, as it never prefers a dominated set (Ishibuchi et al. 2015).

    Raises:
        ValueError: if either set is empty, not finite, or has another number of axes than the other.
    """
    values_NM, exact_KM = _finite_points(values, "values"), _finite_points(exact, "exact")
    if not len(values_NM) or not len(exact_KM) or values_NM.shape[1] != exact_KM.shape[1]:
        raise ValueError(f"values {values_NM.shape} and exact {exact_KM.shape}: must be points on the same axes")
    import moocore

    return FrontDistance(
        epsilon=float(moocore.epsilon_additive(values_NM, ref=exact_KM, maximise=True)),
        igd_plus=float(moocore.igd_plus(values_NM, ref=exact_KM, maximise=True)),
    )


@dataclass(frozen=True)
class Monotonicity:
    """Whether a metric follows w. A poor gate by itself: broken runs were found to be monotone too."""

    rho: float | None
    """Spearman's rank correlation with w; None for fewer than three known points, or where either never changes."""
    n: int


def monotonicity(w: Sequence[float], metrics: Mapping[str, Sequence[float | None]]) -> dict[str, Monotonicity]:
    """Spearman's rank correlation of w with each metric, over the points where the metric is known.

    Raises:
        ValueError: if a metric has another length than w; names it.
    """
    found = {}
    for name, values in metrics.items():
        if len(values) != len(w):
            raise ValueError(f"{name}: must hold one value a w, holds {len(values)} for {len(w)}")
        pairs = [(x, y) for x, y in zip(w, values, strict=True) if y is not None and not math.isnan(y)]
        found[name] = Monotonicity(_spearman(pairs), len(pairs))
    return found


def _spearman(pairs: Sequence[tuple[float, float]]) -> float | None:
    if len(pairs) < 3 or any(len(set(column)) < 2 for column in zip(*pairs, strict=True)):
        return None
    from scipy.stats import rankdata  # type: ignore[import-untyped]

    ranks_2N = rankdata(np.transpose(pairs), axis=1)  # spearmanr's p-value would take ten times as long
    return float(np.corrcoef(ranks_2N)[0, 1])


def _finite_points(values: ArrayLike, name: str) -> Floats:
    points_NM = np.asarray(values, dtype=np.float64)
    if points_NM.ndim != 2 or points_NM.shape[1] == 0:
        raise ValueError(f"{name} of shape {points_NM.shape}: must be (points, axes)")
    if not np.isfinite(points_NM).all():
        raise ValueError(f"{name}: must be finite, row {np.argwhere(~np.isfinite(points_NM))[0][0]} is not")
    return points_NM
