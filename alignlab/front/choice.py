"""Choose the policy that meets the targets on half of the prompts, and say on the other half whether it does.

Shape letters: C candidates, P prompts, M axes.
"""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.front.which_w import Line, joint_chance
from alignlab.stats import Interval, crossed_means
from alignlab.stats.groups import Floats

CHANCE_IS = "(by all prompts + rivals * by the test half) / (1 + rivals)"
"""How a chance is put together; decision 0017 says why."""
MEANS_WORD = 0.5
"""The chance that is asked for where means that reach the targets are enough."""


@dataclass(frozen=True)
class Candidate:
    """A policy whose scores by prompt are known."""

    label: str
    weights: Mapping[str, float]
    means_PM: Floats
    """On the prompts that all candidates have, in their order."""
    share_of: tuple[int | None, ...]
    """As `Scores.share_of`, of all prompts."""
    adapter: Path
    """The policy's; of a point between those that a conditioned adapter was measured at, the conditioned one's."""
    conditioned: bool = False
    """Whether the adapter is a function of w, to be written at `weights`."""

    def on(self, rows_P: Sequence[int]) -> Floats:
        """Scores on some prompts."""
        return self.means_PM[list(rows_P)]


def between(line: Line, weights_SO: Sequence[Mapping[str, float]], adapter: Path, label: str) -> list[Candidate]:
    """A conditioned adapter at every w between those that it was measured at, its scores interpolated.

    Args:
        line: its points in the order of w, of one seed.
        weights_SO: their weights by objective, in the same order.
        adapter: the conditioned adapter.
        label: its name.
    """
    assert line.scores is not None
    names = list(weights_SO[0])
    columns = {name: [one[name] for one in weights_SO] for name in names}
    num_axes = line.means_SM.shape[1]
    values_LPM = np.stack([line.by_prompt(axis, line.grid_L).mean(axis=1) for axis in range(num_axes)], axis=-1)
    return [
        Candidate(
            label=f"{label} w={w:.4g}",
            weights={name: round(float(np.interp(w, line.w_S, columns[name])), 6) for name in names},
            means_PM=values_LPM[index],
            share_of=line.scores.share_of,
            adapter=adapter,
            conditioned=True,
        )
        for index, w in enumerate(line.grid_L.tolist())
    ]


def halves(prompts: Sequence[str]) -> tuple[list[int], list[int]]:
    """Indices of the validation and of the test half: the prompts in the order of their hashes, cut in two.

    Args:
        prompts: four or more, each with two in every half.
    """
    order = sorted(range(len(prompts)), key=lambda index: hashlib.sha256(prompts[index].encode()).digest())
    cut = (len(prompts) + 1) // 2
    return sorted(order[:cut]), sorted(order[cut:])


@dataclass(frozen=True)
class Verdict:
    """How a candidate stands to the targets on some prompts."""

    means: tuple[Interval, ...]
    """Of each axis."""
    chance: float | None
    """That its true means are at least the targets; None where the scores do not vary."""
    met: bool
    """Whether its means are."""


def verdict(candidate: Candidate, rows_P: Sequence[int], targets: Mapping[int, float]) -> Verdict:
    """A candidate on some prompts.

    Args:
        candidate: the policy.
        rows_P: which prompts.
        targets: axis -> the mean that must at least be reached.
    """
    values_PM = candidate.on(rows_P)
    part = len(rows_P) / len(candidate.means_PM)
    means, chances = [], {}
    for axis, share_of in enumerate(candidate.share_of):
        scored = None if share_of is None else round(share_of * part)
        found = crossed_means(values_PM[None, None, :, axis], share_of=scored)
        low, high = (float(end[0]) for end in found.bounds())
        bounds = None if np.isnan(low) else (low, high)
        means.append(Interval.of(float(found.mean_L[0]), bounds, len(rows_P), groups=len(rows_P)))
        if axis in targets:
            chances[axis] = float(found.chance_at_least(targets[axis])[0])
    known = None if np.isnan(list(chances.values())).any() else list(chances.values())
    if known is not None:
        chance: float | None = known[0] if len(known) == 1 else joint_chance(known, values_PM[:, list(chances)].T)
    else:
        chance = None
    return Verdict(tuple(means), chance, all(values_PM[:, axis].mean() >= targets[axis] for axis in targets))


def pick(
    candidates: Sequence[Candidate], rows_P: Sequence[int], targets: Mapping[int, float], *, min_chance: float
) -> int | None:
    """Index of the candidate that meets the targets with the best other axes; None where none meets them.

    It meets them where its means do and the chance that its true means do is at least `min_chance`; an unknown chance
    is not, where more than the means' word is asked for. Of several other axes each counts by its range over the
    candidates; without one, the chance decides.

    Args:
        candidates: all.
        rows_P: the validation half.
        targets: axis -> target.
        min_chance: 0.5 takes the means' word for it.
    """
    found = [verdict(one, rows_P, targets) for one in candidates]
    meeting = [index for index, one in enumerate(found) if one.met and _is_sure(one.chance, min_chance)]
    if not meeting:
        return None
    means_CM = np.array([one.on(rows_P).mean(axis=0) for one in candidates])
    others = [axis for axis in range(means_CM.shape[1]) if axis not in targets]
    spans_M = np.ptp(means_CM, axis=0)
    worth_C = (means_CM / np.where(spans_M > 0, spans_M, 1.0))[:, others].sum(axis=1)
    if not others:
        worth_C = np.array([one.chance or 0.0 for one in found])
    return max(meeting, key=lambda index: float(worth_C[index]))


def _is_sure(chance: float | None, min_chance: float) -> bool:
    return min_chance <= MEANS_WORD if chance is None else chance >= min_chance


@dataclass(frozen=True)
class Choice:
    """The chosen candidate and what is known of it."""

    index: int
    validation: Verdict
    test: Verdict
    chance: float | None
    """That its true means reach the targets; see CHANCE_IS."""
    chance_of_all: float | None
    """The same by all prompts together."""
    rivals: int
    """Policies that could as well have been chosen."""


def choose(
    candidates: Sequence[Candidate], prompts: Sequence[str], targets: Mapping[int, float], *, min_chance: float = 0.5
) -> Choice | None:
    """Pick on the validation half, judge on the test half; None where no candidate meets the targets.

    Without rivals, luck on the validation half decides nothing, and the chance is that of all prompts. Among many, the
    choice favours whom luck favoured there, so that the test half alone counts (docs/choosing.md).

    Args:
        candidates: policies on the same prompts.
        prompts: their keys, in the order of the candidates' rows.
        targets: axis -> the mean that must at least be reached.
        min_chance: see `pick`.
    """
    validation, test = halves(prompts)
    index = pick(candidates, validation, targets, min_chance=min_chance)
    if index is None:
        return None
    parts = [verdict(candidates[index], rows, targets) for rows in (validation, test, range(len(prompts)))]
    num_rivals = rivals(candidates, index, validation, list(targets))
    by_test, by_all = parts[1].chance, parts[2].chance
    chance = None
    if by_test is not None and by_all is not None:
        chance = (by_all + num_rivals * by_test) / (1 + num_rivals)
    return Choice(index, parts[0], parts[1], chance, by_all, num_rivals)


def rivals(candidates: Sequence[Candidate], index: int, rows_P: Sequence[int], axes: Sequence[int]) -> int:
    """Number of other candidates within one standard error of a difference, paired by prompt, on each axis.

    Args:
        candidates: all.
        index: of the one that the others are compared with.
        rows_P: the prompts.
        axes: those that have a target.
    """
    own_PA = candidates[index].on(rows_P)[:, axes]
    gaps_CPA = np.array([one.on(rows_P)[:, axes] - own_PA for one in candidates])
    errors_CA = gaps_CPA.std(axis=1, ddof=1) / np.sqrt(len(rows_P))
    return int((np.abs(gaps_CPA.mean(axis=1)) <= errors_CA).all(axis=1).sum()) - 1


def nearest_miss(candidates: Sequence[Candidate], rows_P: Sequence[int], targets: Mapping[int, float]) -> int:
    """The candidate whose means come nearest to the targets: the least shortfall, in standard deviations over prompts.

    Of several that fall short by as little, the one with the greatest chance to meet them.

    Args:
        candidates: all.
        rows_P: the prompts.
        targets: axis -> target.
    """

    def shortfall(candidate: Candidate) -> float:
        """The largest distance below a target, in standard deviations."""
        values_PM = candidate.on(rows_P)
        gaps = [
            max(value - values_PM[:, axis].mean(), 0) / (values_PM[:, axis].std() or 1)
            for axis, value in targets.items()
        ]
        return float(max(gaps))

    def rank(candidate: Candidate) -> tuple[float, float]:
        return shortfall(candidate), -(verdict(candidate, rows_P, targets).chance or 0.0)

    return min(range(len(candidates)), key=lambda index: rank(candidates[index]))


def as_record(found: Verdict, axes: Sequence[str]) -> dict[str, Any]:
    """A verdict for choice.json.

    Args:
        found: the verdict.
        axes: names.
    """
    means = {axis: one.as_record() for axis, one in zip(axes, found.means, strict=True)}
    return {"means": means, "chance": found.chance, "met": found.met}
