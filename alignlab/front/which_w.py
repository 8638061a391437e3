"""Which w: where a series' mean scores reach the targets, by interpolation between its settings, with uncertainty.

Between two neighbouring w the means are taken to be linear in w. The interval of the w that gets there holds every w at
which a 95 % interval of the interpolated mean holds the target, so it covers the true one as often as that interval
does, whatever the shape; it may be several pieces, or reach the ends of what was trained.

Shape letters: S settings in the order of w, L points along w, K seeds, P prompts, M axes, A axes with a target, D
draws.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import pairwise
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import ndtri  # type: ignore[import-untyped]

from alignlab.front.prompts import Scores
from alignlab.stats import Estimate, crossed_means
from alignlab.stats.groups import Floats

STEPS = 100
"""Points along w between two neighbouring settings, at which an interval is worked out."""

NUM_DRAWS = 20_000
"""Of a joint chance: known to a third of a percent."""

Range = tuple[float, float]
"""From one w to another, both in it."""


@dataclass(frozen=True)
class Line:
    """A series whose mean scores are linear between neighbouring w."""

    w_S: Floats
    """Ascending, all different."""
    means_SM: Floats
    scores: Scores | None
    """In the same order; None where no interval can be had."""

    @cached_property
    def grid_L(self) -> Floats:
        """The w's at which intervals are worked out: every setting's, and STEPS to the next."""
        parts = [np.linspace(low, high, STEPS, endpoint=False) for low, high in pairwise(self.w_S.tolist())]
        return np.concatenate([*parts, self.w_S[-1:]])

    def means(self, axis: int, w_L: Floats) -> Floats:
        """Interpolated means, shape (L,)."""
        return np.asarray(np.interp(w_L, self.w_S, self.means_SM[:, axis]), dtype=np.float64)

    def estimate(self, axis: int, w_L: Floats) -> Estimate | None:
        """The same with their errors; None where no interval can be had."""
        if self.scores is None:
            return None
        fewest, (_, _, part_L) = self.scores.share_of[axis], self._neighbours(w_L)
        behind_L = None if fewest is None else fewest / (np.square(1 - part_L) + np.square(part_L))
        return crossed_means(self.by_prompt(axis, w_L), share_of=behind_L)

    def _neighbours(self, w_L: Floats) -> tuple[NDArray[np.intp], NDArray[np.intp], Floats]:
        """Of each w the settings below and above, and how far it lies from the one to the other, 0 to 1."""
        last = max(len(self.w_S) - 2, 0)
        low_L = np.clip(np.searchsorted(self.w_S, w_L, side="right") - 1, 0, last)
        high_L = np.minimum(low_L + 1, len(self.w_S) - 1)
        gap_L = self.w_S[high_L] - self.w_S[low_L]
        part_L = np.divide(w_L - self.w_S[low_L], gap_L, out=np.zeros_like(gap_L), where=gap_L > 0)
        return low_L, high_L, part_L

    def by_prompt(self, axis: int, w_L: Floats) -> Floats:
        """Interpolated scores by seed and prompt, shape (L, K, P)."""
        assert self.scores is not None
        values_SKP = self.scores.values_SKPM[..., axis]
        low_L, high_L, part_L = self._neighbours(w_L)
        part_L = part_L[:, None, None]
        return (1 - part_L) * values_SKP[low_L] + part_L * values_SKP[high_L]

    def crossings(self, axis: int, target: float) -> list[float]:
        """Every w at which the interpolated mean passes or touches the target."""
        found = []
        points = list(zip(self.w_S.tolist(), self.means_SM[:, axis].tolist(), strict=True))
        for (w_low, low), (w_high, high) in pairwise(points):
            if (low - target) * (high - target) < 0:
                found.append(w_low + (target - low) / (high - low) * (w_high - w_low))
        return sorted(found + [w for w, mean in points if mean == target])

    def met(self, targets: Mapping[int, float]) -> list[Range]:
        """Where the interpolated means are at least the targets, of all axes at once."""
        ends = {w for axis, target in targets.items() for w in self.crossings(axis, target)}
        w_L = np.array(sorted(ends | set(self.w_S.tolist())))
        middle_L = (w_L[:-1] + w_L[1:]) / 2
        both_L = np.sort(np.concatenate([w_L, middle_L]))
        slack = 1e-9 * max(1.0, float(np.abs(self.means_SM).max()))  # a crossing meets its target but for rounding
        met_L = np.all([self.means(axis, both_L) >= target - slack for axis, target in targets.items()], axis=0)
        return _ranges(both_L, met_L)

    def chance(self, targets: Mapping[int, float], w: float) -> float | None:
        """Chance that the true interpolated means at w are at least the targets, all at once; None where unknown.

        Each target's own chance is exact for its estimate; they are joined as normal variables of the correlation that
        the prompts' scores have.
        """
        at = np.array([w])
        estimates = {axis: self.estimate(axis, at) for axis in targets}
        known = {axis: one for axis, one in estimates.items() if one is not None}
        if len(known) < len(targets):
            return None
        chances = [float(one.chance_at_least(targets[axis])[0]) for axis, one in known.items()]
        if np.isnan(chances).any():
            return None
        if len(chances) == 1:
            return chances[0]
        values = np.array([self.by_prompt(axis, at)[0].mean(axis=0) for axis in targets])
        return joint_chance(chances, values)

    def best(self, met: Sequence[Range], others: Sequence[int], targets: Mapping[int, float]) -> float:
        """The w among those that meet the targets with the best mean of the others; of the surest where none is left.

        Args:
            met: ranges of w, not empty.
            others: axes without a target; each counts by its own range over the settings.
            targets: axis -> target.
        """
        inside_L = np.concatenate([self.w_S, self.grid_L])
        w_L = np.unique([*(end for found in met for end in found), *(w for w in inside_L if _is_within(w, met))])
        if others:
            spans = {axis: float(np.ptp(self.means_SM[:, axis])) or 1.0 for axis in others}
            worth_L = np.sum([self.means(axis, w_L) / spans[axis] for axis in others], axis=0)
        elif self.scores is not None:
            worth_L = np.array([self.chance(targets, w) or 0.0 for w in w_L[:: max(1, len(w_L) // 50)]])
            w_L = w_L[:: max(1, len(w_L) // 50)]
        else:
            worth_L = np.min([self.means(axis, w_L) - target for axis, target in targets.items()], axis=0)
        return float(w_L[int(worth_L.argmax())])


def joint_chance(chances: Sequence[float], values_AP: Floats) -> float:
    """Chance of all, each as likely as given, tied as the prompts' scores are (a Gaussian copula).

    Args:
        chances: of each axis.
        values_AP: its scores by prompt; an axis without spread is taken to be independent.
    """
    spread_A = values_AP.std(axis=1)
    centred_AP = values_AP - values_AP.mean(axis=1, keepdims=True)
    unit_AP = np.divide(centred_AP, spread_A[:, None], out=np.zeros_like(centred_AP), where=spread_A[:, None] > 1e-12)
    correlation_AA = unit_AP @ unit_AP.T / values_AP.shape[1]
    np.fill_diagonal(correlation_AA, 1.0)
    draws_DA = np.random.default_rng(0).multivariate_normal(np.zeros(len(chances)), correlation_AA, size=NUM_DRAWS)
    return float((draws_DA <= ndtri(np.clip(chances, 1e-9, 1 - 1e-9))).all(axis=1).mean())


def which_w(line: Line, axes: Sequence[str], targets: Mapping[str, float]) -> dict[str, Any]:
    """What w reaches the targets, as a record of front.json.

    Args:
        line: the series.
        axes: its axes.
        targets: axis -> the mean that must at least be reached, in its own unit.
    """
    wanted = {axes.index(axis): value for axis, value in targets.items()}
    met = line.met(wanted)
    found: dict[str, Any] = {
        "range": [float(line.w_S[0]), float(line.w_S[-1])],
        "over": None if line.scores is None else line.scores.over,
        "targets": {axes[axis]: _one_target(line, axis, value) for axis, value in wanted.items()},
        "met": [list(one) for one in met],
        "w": None,
    }
    if met:
        others = [index for index in range(len(axes)) if index not in wanted]
        w = line.best(met, others, wanted)
        found["w"] = w
        found["chance"] = line.chance(wanted, w)
        found["at_w"] = {axis: at_w(line, index, w) for index, axis in enumerate(axes)}
    return found


def at_w(line: Line, axis: int, w: float) -> dict[str, Any]:
    """The interpolated mean of one axis with its 95 % interval, as a record.

    Args:
        line: the series.
        axis: index of the axis.
        w: within what was trained.
    """
    at = np.array([w])
    estimate, bounds = line.estimate(axis, at), None
    if estimate is not None:
        low, high = (float(end[0]) for end in estimate.bounds())
        bounds = None if np.isnan(low) else [low, high]
    return {"mean": float(line.means(axis, at)[0]), "ci95": bounds}


def _one_target(line: Line, axis: int, target: float) -> dict[str, Any]:
    """Where one target is reached: at which w, with its interval, and from where to where it is met, and surely met."""
    highest = float(line.w_S[int(line.means_SM[:, axis].argmax())])
    found: dict[str, Any] = {
        "at_least": target,
        "w": line.crossings(axis, target),
        "ci95": None,
        "met": [list(one) for one in line.met({axis: target})],
        "surely_met": None,
        "best": {"w": highest, **at_w(line, axis, highest)},
    }
    estimate = line.estimate(axis, line.grid_L)
    if estimate is None:
        return found
    low_L, high_L = estimate.bounds()
    if np.isnan(low_L).any():
        return found
    may_L = (low_L <= target) & (target <= high_L)
    edges = (low_L - target, high_L - target)
    found["ci95"] = [list(one) for one in _ranges(line.grid_L, may_L, edges)]
    found["surely_met"] = [list(one) for one in _ranges(line.grid_L, low_L >= target, edges[:1])]
    return found


def _ranges(w_L: Floats, inside_L: NDArray[np.bool_], edges: Sequence[Floats] = ()) -> list[Range]:
    """Neighbouring points that are inside, as ranges.

    Args:
        w_L: ascending.
        inside_L: whether each is.
        edges: what changes its sign at an end; the end is then moved to that w, by interpolation.
    """
    found = []
    index = 0
    while index < len(w_L):
        if not inside_L[index]:
            index += 1
            continue
        last = index
        while last + 1 < len(w_L) and inside_L[last + 1]:
            last += 1
        found.append((_end(w_L, index, index - 1, edges), _end(w_L, last, last + 1, edges)))
        index = last + 1
    return found


def _end(w_L: Floats, inner: int, outer: int, edges: Sequence[Floats]) -> float:
    """Where between the last point inside and the first one outside the sign changes; the former without edges."""
    if not 0 <= outer < len(w_L):
        return float(w_L[inner])
    for edge_L in edges:
        a, b = float(edge_L[inner]), float(edge_L[outer])
        if (a < 0) != (b < 0):
            return float(w_L[inner] + (w_L[outer] - w_L[inner]) * a / (a - b))
    return float(w_L[inner])


def _is_within(w: float, ranges: Sequence[Range]) -> bool:
    return any(low <= w <= high for low, high in ranges)
