"""A front in numbers, series by series: does each mean follow its weight, what do the points cover, what do they lack.

Every number is of the means over seeds of one series (algorithm, beta, loss, recipe): a hypervolume over several seeds
or series would grow with their number, as the luckiest run counts at each w.

Shape letters: S settings, M axes, R bootstrap draws.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import numpy as np

from alignlab.front.collect import FrontPoint
from alignlab.front.metrics import ExactCurve, distance_to_exact, hypervolume, monotonicity, nadir, non_dominated
from alignlab.front.prompts import PromptScores, Resampled, resampled, scores_of
from alignlab.front.series import PlotPoint, points_by_series
from alignlab.stats import paired_difference, percentile_bounds, records_by_holm
from alignlab.stats.groups import Floats


def front_summary(
    points: Sequence[FrontPoint], *, exact: ExactCurve | None, reference: Sequence[float] | None
) -> dict[str, Any]:
    """front.json: the numbers of every series, and never one number over several.

    `follows_weight`: Spearman's correlation of each objective's weight with its mean. `hypervolume`: with its corner,
    the reference's own point (what is better on every axis) and the exact front's nadir, each the same for all series.
    `to_exact`: additive epsilon and IGD+ in reward units, only where the exact front is known at every weighting. Their
    intervals are a bootstrap's over prompts and seeds; `resampled` says over which, and is null where neither is
    available. `neighbours`: paired differences between neighbouring w on the same prompts.

    Args:
        points: of one front.
        exact: the exact front.
        reference: the reference policy's mean on each axis.
    """
    weighed = [point for point in points if point.weights]
    axes = points[0].axes
    found: dict[str, Any] = {"axes": dict(zip(points[0].objectives or axes, axes, strict=True)), "points": len(weighed)}
    series = points_by_series(weighed)
    return {**found, "series": {name: _series(series[name], exact=exact, reference=reference) for name in series}}


def _series(
    settings: Sequence[PlotPoint], *, exact: ExactCurve | None, reference: Sequence[float] | None
) -> dict[str, Any]:
    first = settings[0].runs[0]
    axes, objectives = first.axes, list(first.weights)
    values_SM = np.array([setting.position(axes) for setting in settings])
    draws = resampled(settings, axes)
    found: dict[str, Any] = {
        "algorithm": first.algorithm,
        "beta": first.beta,
        "loss_type": first.loss_type,
        "recipe": dict(first.recipe or {}),
        "seeds": sorted({run.seed for setting in settings for run in setting.runs if run.seed is not None}),
        "resampled": None if draws is None else draws.over,
        "settings": [_setting(setting, objectives, axes) for setting in settings],
        "follows_weight": follows_weight(settings, objectives, axes, draws),
        "non_dominated": int(non_dominated(values_SM).sum()),
        "neighbours": neighbours(settings, axes),
    }
    rows = [None if exact is None else exact.index_of(setting.weights) for setting in settings]
    corners: dict[str, Sequence[float]] = {} if reference is None else {"reference": reference}
    sets = {"points": values_SM}
    if exact is not None and None not in rows:
        at_SM = exact.means_KM[[row for row in rows if row is not None]]
        sets["exact"] = at_SM
        corners["nadir"] = nadir(exact.means_KM)  # of the whole curve, so that it is the same for every series
        found["to_exact"] = {
            name: _with_interval(values_SM, draws, partial(_distance, exact_SM=at_SM, name=name))
            for name in ("epsilon", "igd_plus")
        }
    found["hypervolume"] = {
        name: {"corner": list(corner)}
        | {of: hypervolume(held, reference=corner).volume for of, held in sets.items()}
        | {"ci95": _with_interval(values_SM, draws, partial(_volume, corner=corner))["ci95"]}
        for name, corner in corners.items()
    }
    return found


def _setting(setting: PlotPoint, objectives: Sequence[str], axes: Sequence[str]) -> dict[str, Any]:
    return {
        "w": setting.label,
        "weights": dict(zip(objectives, setting.weights, strict=True)),
        "seeds": len(setting.runs),
        "means": {name: interval.as_record() for name, interval in setting.metrics.items()},
        "at_chance": setting.at_chance(axes),
    }


def _volume(values_SM: Floats, corner: Sequence[float]) -> float:
    return hypervolume(values_SM, reference=corner).volume


def _distance(values_SM: Floats, exact_SM: Floats, name: str) -> float:
    return float(getattr(distance_to_exact(values_SM, exact=exact_SM), name))


def _with_interval(values_SM: Floats, draws: Resampled | None, number: Callable[[Floats], float]) -> dict[str, Any]:
    """A number about a set of points, with the bootstrap's pivotal interval.

    Noise makes such numbers too good (or too bad) on average, and a bootstrap draw holds it twice; reflecting the
    draws at the value takes that out, where their percentiles would add it again.
    """
    value, bounds = number(values_SM), None
    if draws is not None:
        bounds = percentile_bounds(np.array([number(drawn_SM) for drawn_SM in draws.means_RSM]))
    ends = None if bounds is None else [2 * value - bounds[1], 2 * value - bounds[0]]
    return {"value": value, "ci95": ends}


def follows_weight(
    settings: Sequence[PlotPoint], objectives: Sequence[str], axes: Sequence[str], draws: Resampled | None
) -> dict[str, dict[str, Any]]:
    """Objective -> its axis, and Spearman's rank correlation of its weight with its mean over the settings.

    Args:
        settings: of one series.
        objectives: in the order of the axes.
        axes: metrics.
        draws: of a bootstrap; None without.
    """
    found: dict[str, dict[str, Any]] = {}
    for index, (objective, axis) in enumerate(zip(objectives, axes, strict=True)):
        weights = [setting.weights[index] for setting in settings]
        means: Mapping[str, list[float | None]] = {axis: [setting.metrics[axis].mean for setting in settings]}
        measured = monotonicity(weights, means)[axis]
        bounds = None
        if draws is not None and measured.rho is not None:
            drawn = monotonicity(weights, {str(draw): row for draw, row in enumerate(draws.means_RSM[:, :, index])})
            bounds = percentile_bounds(np.array([np.nan if one.rho is None else one.rho for one in drawn.values()]))
        ends = None if bounds is None else list(bounds)
        found[objective] = {"axis": axis, "rho": measured.rho, "ci95": ends, "n": measured.n}
    return found


def neighbours(settings: Sequence[PlotPoint], axes: Sequence[str]) -> list[dict[str, Any]] | None:
    """Differences between neighbouring w, paired by prompt, with p-values by Holm over the w of each axis.

    They are between these trained policies: how much another seed would change them is not in them. None for more than
    two objectives, which have no order of w, and where two neighbours have no scores on the same prompts.
    """
    if any(len(setting.weights) != 2 for setting in settings):
        return None
    ordered = sorted(settings, key=lambda setting: setting.weights)
    scores = [scores_of(setting, axes) for setting in ordered]
    if len(ordered) < 2 or any(one is None for one in scores):
        return None
    known = [one for one in scores if one is not None]
    by_axis = {axis: [_paired(*pair, index) for pair in pairwise(known)] for index, axis in enumerate(axes)}
    records = {axis: records_by_holm(differences) for axis, differences in by_axis.items()}
    return [
        {"from": low.label, "to": high.label, "differences": {axis: records[axis][index] for axis in axes}}
        for index, (low, high) in enumerate(pairwise(ordered))
    ]


def _paired(low: PromptScores, high: PromptScores, index: int) -> Any:
    before, after = ((one.means_PM[:, index].tolist(), one.prompts) for one in (low, high))
    return paired_difference(before, after, shares=low.is_share[index] and high.is_share[index])
