"""Runs of one series (algorithm, beta, loss, recipe), with the seeds of one setting put together."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alignlab.front.collect import REFERENCE, FrontPoint
from alignlab.front.prompts import seed_scores
from alignlab.stats import FEWEST_SEEDS, Interval, crossed_means, mean_interval

CHANCE = 0.5
ACCURACY = "_accuracy"
"""How the name of a metric ends that is a share of pairs ranked right: half is chance, and the reference's own."""

HELD_OUT_REWARD = "_held_out_reward"
"""How the name of a mean score ends that a second scorer of an objective gave, which nothing was trained on."""


def held_out_metric(objective: str) -> str:
    """The metric of an objective's held-out scorer."""
    return f"{objective}{HELD_OUT_REWARD}"


@dataclass(frozen=True)
class PlotPoint:
    """A run, or the mean over the seeds of one setting."""

    label: str
    weights: tuple[float, ...]
    metrics: Mapping[str, Interval]
    runs: tuple[FrontPoint, ...]

    def position(self, axes: Sequence[str]) -> list[float]:
        """The mean on each axis; NaN where it is unknown."""
        means = (self.metrics[axis].mean for axis in axes)
        return [float("nan") if mean is None else mean for mean in means]

    def at_chance(self, axes: Sequence[str]) -> list[str]:
        """The axes that are accuracies whose interval holds one half: the policy is not shown to differ from a coin."""
        return [axis for axis in axes if is_at_chance(axis, self.metrics[axis])]


def is_at_chance(name: str, metric: Interval) -> bool:
    """Whether a metric is an accuracy whose interval holds one half."""
    return name.endswith(ACCURACY) and metric.bounds is not None and metric.bounds[0] <= CHANCE <= metric.bounds[1]


def are_accuracies(axes: Sequence[str]) -> bool:
    """Whether all axes are preference accuracies, which say nothing of what a policy writes."""
    return bool(axes) and all(axis.endswith(ACCURACY) for axis in axes)


def points_by_series(points: Sequence[FrontPoint]) -> dict[str, list[PlotPoint]]:
    """Each series with its settings, in the order given; other runs without weights than the reference stand alone."""
    settings: dict[str, dict[object, list[FrontPoint]]] = {}
    for point in points:
        seeds_of_one = tuple(point.weights.items()) or (REFERENCE if point.algorithm == REFERENCE else None)
        key = seeds_of_one or point.folder  # of other runs without weights nothing says that two are one setting
        settings.setdefault(point.series, {}).setdefault(key, []).append(point)
    return {name: [_plot_point(runs) for runs in groups.values()] for name, groups in settings.items()}


def _plot_point(runs: Sequence[FrontPoint]) -> PlotPoint:
    first = runs[0]
    names = [name for name in first.metrics if all(name in run.metrics for run in runs)]
    found = PlotPoint(
        label=short_weights(first) if first.weights else "",
        weights=tuple(first.weights.values()),
        metrics={name: over_seeds([run.metrics[name] for run in runs]) for name in names},
        runs=tuple(runs),
    )
    return found if len(runs) == 1 else replace(found, metrics={**found.metrics, **_crossed(found)})


def over_seeds(metrics: Sequence[Interval]) -> Interval:
    """A lone run's own interval; else the mean over seeds, with what the prompts and FEWEST_SEEDS or more leave open.

    All seeds answer the same prompts, so the prompts' part, as wide as the seeds' own intervals on average, does not
    shrink with their number. The seeds' t-interval is added to it in squares, though its spread holds some of the
    sampling already: too wide rather than too narrow. `missing` counts the seeds' unknown values.
    """
    if len(metrics) == 1:
        return metrics[0]
    found, missing = mean_interval(metric.mean for metric in metrics), sum(metric.missing for metric in metrics)
    bounds = found.bounds if found.n >= FEWEST_SEEDS else None
    own = [
        (one.mean - one.bounds[0], one.bounds[1] - one.mean) for one in metrics if one.mean is not None and one.bounds
    ]
    if found.mean is not None and found.n >= FEWEST_SEEDS and len(own) == found.n:
        low, high = (math.hypot(sum(ends) / len(own), found.half_width or 0.0) for ends in zip(*own, strict=True))
        bounds = (found.mean - low, found.mean + high)
    return Interval.of(found.mean, bounds, found.n, missing=missing, groups=found.groups)


def _crossed(setting: PlotPoint) -> dict[str, Interval]:
    """The axes over prompts and seeds together, where all seeds' means are those of scores on the same prompts."""
    axes = setting.runs[0].axes
    scores, found = seed_scores([setting], axes), {}
    if scores is None or len(setting.runs) < FEWEST_SEEDS:
        return {}
    for index, axis in enumerate(axes):
        values_1KP, mean = scores.values_SKPM[..., index], setting.metrics[axis].mean
        estimate = crossed_means(values_1KP, share_of=scores.share_of[index])
        low, high = (float(end[0]) for end in estimate.bounds())
        same = mean is not None and math.isclose(
            mean, estimate.mean_L[0], rel_tol=1e-3, abs_tol=1e-3 * values_1KP.std()
        )
        if same and not math.isnan(low):
            n, missing = (sum(getattr(run.metrics[axis], name) for run in setting.runs) for name in ("n", "missing"))
            found[axis] = Interval.of(mean, (low, high), n, missing=missing, groups=values_1KP.shape[2])
    return found


def weight_label(point: FrontPoint) -> str:
    """The first weight where it says the other (two that sum to 1), else all; a dash for a policy without weights."""
    return w_text(point.first_weight if _says_all(point) else tuple(point.weights.values()))


def short_weights(point: FrontPoint) -> str:
    """The same for a picture: several weights in hundredths, `80 10 10`."""
    if _says_all(point):
        return w_text(point.first_weight)
    return " ".join(f"{100 * weight:.3g}" for weight in point.weights.values())


def w_text(w: float | tuple[float, ...] | None) -> str:
    """One or several weights as text; a dash for none."""
    if w is None:
        return "-"
    return ", ".join(f"{part:g}" for part in w) if isinstance(w, tuple) else f"{w:g}"


def _says_all(point: FrontPoint) -> bool:
    return len(point.weights) <= 2 and (len(point.weights) < 2 or abs(sum(point.weights.values()) - 1) < 1e-6)


def varying_weight(points: Sequence[FrontPoint]) -> int:
    """Index of the first objective whose weight is not the same in all points, which `w` moves; 0 if none is."""
    columns = zip(*(tuple(point.weights.values()) for point in points if point.weights), strict=True)
    return next((index for index, column in enumerate(columns) if len(set(column)) > 1), 0)
