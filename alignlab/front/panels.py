"""One panel of a front's picture: objective against objective, or a metric against a weight."""

import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.front.annotate import Annotation
from alignlab.front.collect import FrontPoint
from alignlab.front.figures import EXACT, FAINT, REFERENCE, REFERENCE_STYLE, Style
from alignlab.front.metrics import ExactCurve
from alignlab.front.series import CHANCE, PlotPoint, are_accuracies
from alignlab.stats import Interval
from alignlab.stats.groups import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PREVIEW_LINE: dict[str, Any] = {"color": EXACT, "linewidth": 1.1, "linestyle": (0, (5, 3)), "alpha": 0.8}
HOLLOW: dict[str, Any] = {
    "markersize": 5.0,
    "markerfacecolor": "white",
    "markeredgecolor": EXACT,
    "markeredgewidth": 1.0,
}
"""Marks of the exact front."""


def draw_pair(
    panel: "Axes",
    pair: tuple[int, int],
    axes: tuple[str, ...],
    series: Mapping[str, list[PlotPoint]],
    styles: Mapping[str, Style],
    *,
    exact: ExactCurve | None,
    reference: Sequence[float] | None,
) -> list[Annotation]:
    """Draw one objective against another; return the labels to place.

    Args:
        panel: to draw in.
        pair: indices of the axes on x and y.
        axes: of the front.
        series: name -> its settings.
        styles: of each series.
        exact: the exact front.
        reference: the reference's mean on each axis.
    """
    i, j = pair
    labels = []
    if are_accuracies(axes):
        panel.axvline(CHANCE, color=FAINT, linewidth=0.8, linestyle=":", zorder=1)
        panel.axhline(CHANCE, color=FAINT, linewidth=0.8, linestyle=":", zorder=1)
    if exact is not None:
        weights = [setting.weights for settings in series.values() for setting in settings]
        _draw_exact(panel, exact, exact.means_KM[:, i], exact.means_KM[:, j], weights, joined=len(axes) == 2)
    if reference is not None:
        panel.plot(reference[i], reference[j], REFERENCE_STYLE.marker, color=REFERENCE, markersize=12, zorder=4)
        name = "reference (chance)" if are_accuracies(axes) else "reference"
        labels.append(Annotation(panel, name, reference[i], reference[j], REFERENCE))
    for name, settings in series.items():
        color = styles[name].color
        positions = [(setting.metrics[axes[i]], setting.metrics[axes[j]]) for setting in settings]
        _draw_series(panel, positions, settings, styles[name], (axes[i], axes[j]), joined=len(axes) == 2)
        for setting, (x, y) in zip(settings, positions, strict=True):
            if setting.label and x.mean is not None and y.mean is not None:
                labels.append(Annotation(panel, setting.label, x.mean, y.mean, color))
    return labels


def draw_against_weight(
    panel: "Axes",
    index: int,
    metric: str,
    series: Mapping[str, list[PlotPoint]],
    styles: Mapping[str, Style],
    *,
    exact: ExactCurve | None,
) -> None:
    """Draw a metric of each point against the weight of one objective.

    Args:
        panel: to draw in.
        index: of the objective.
        metric: on y.
        series: name -> its settings.
        styles: of each series.
        exact: the exact front.
    """
    if exact is not None and metric in ("kl", *exact.axes):
        weights = [setting.weights for settings in series.values() for setting in settings]
        y_K = exact.kl_K if metric == "kl" else exact.means_KM[:, exact.axes.index(metric)]
        _draw_exact(panel, exact, exact.weights_KM[:, index], y_K, weights, joined=len(exact.axes) == 2)
    for name, settings in series.items():
        known = [setting for setting in settings if setting.weights and metric in setting.metrics]
        positions = [(Interval(setting.weights[index], None, None, 1), setting.metrics[metric]) for setting in known]
        _draw_series(panel, positions, known, styles[name], (index, metric), joined=len(settings[0].weights) <= 2)
    if metric == "kl":
        panel.set_ylim(bottom=min(0.0, panel.get_ylim()[0]) if panel.dataLim.ymin < 0 else 0.0)


def draw_preview(panel: "Axes", preview: ExactCurve | None, x: str | int, y: str) -> None:
    """Draw the estimated front of two objectives.

    Args:
        panel: to draw in.
        preview: the estimate; nothing is drawn without one.
        x: an axis, `kl`, or the index of a weight.
        y: an axis or `kl`.
    """
    if preview is None or len(preview.axes) != 2 or not {x, y} <= {0, 1, "kl", *preview.axes}:
        return
    columns: list[Floats] = []
    for name in (x, y):
        if isinstance(name, int):
            columns.append(preview.weights_KM[:, name])
        else:
            columns.append(preview.kl_K if name == "kl" else preview.means_KM[:, preview.axes.index(name)])
    order = np.argsort(preview.weights_KM[:, 0], kind="stable")
    panel.plot(columns[0][order], columns[1][order], **PREVIEW_LINE, zorder=2.5)


def _draw_exact(
    panel: "Axes", exact: ExactCurve, x_K: Floats, y_K: Floats, weights: Sequence[tuple[float, ...]], *, joined: bool
) -> None:
    if joined:
        order = np.argsort(exact.weights_KM[:, 0], kind="stable")
        panel.plot(x_K[order], y_K[order], "-", color=EXACT, linewidth=1.2, zorder=2)
    rows = sorted({row for point in weights if (row := exact.index_of(point)) is not None})
    panel.plot(x_K[rows], y_K[rows], "o", **HOLLOW, zorder=3)


def _draw_series(
    panel: "Axes",
    positions: Sequence[tuple[Interval, Interval]],
    settings: Sequence[PlotPoint],
    style: Style,
    names: tuple[str | int, str],
    *,
    joined: bool,
) -> None:
    """Marks, bars, seeds and joining line of one series; `names` are the metrics on x (a number: a weight) and y."""
    color, marker = style.color, style.marker
    xs = [math.nan if x.mean is None else x.mean for x, _ in positions]
    ys = [math.nan if y.mean is None else y.mean for _, y in positions]
    weighted = [(setting.weights, x, y) for setting, x, y in zip(settings, xs, ys, strict=True) if setting.weights]
    if joined and len(weighted) > 1:
        _, line_x, line_y = zip(*sorted(weighted), strict=True)
        panel.plot(line_x, line_y, "-", color=color, linewidth=1.3, alpha=0.75, zorder=3.5)
    for x, y in positions:
        if y.low is not None and y.high is not None and x.mean is not None:
            panel.plot([x.mean] * 2, [y.low, y.high], "-", color=color, linewidth=1.1, alpha=0.6, zorder=4)
        if x.low is not None and x.high is not None and y.mean is not None:
            panel.plot([x.low, x.high], [y.mean] * 2, "-", color=color, linewidth=1.1, alpha=0.6, zorder=4)
    seeds = [run for setting in settings if len(setting.runs) > 1 for run in setting.runs]
    seeds_x, seeds_y = ([_value(run, name) for run in seeds] for name in names)
    panel.plot(seeds_x, seeds_y, marker, **seed_style(color), zorder=3.8)
    metrics = [name for name in names if isinstance(name, str)]
    pale = [bool(setting.at_chance(metrics)) for setting in settings]
    look: dict[str, Any] = {"color": color, "markersize": 6.5, "zorder": 5}
    solid_y = [math.nan if faint else y for faint, y in zip(pale, ys, strict=True)]
    panel.plot(xs, solid_y, marker, markeredgecolor="white", markeredgewidth=0.7, **look)
    if any(pale):
        pale_x, pale_y = ([value for faint, value in zip(pale, held, strict=True) if faint] for held in (xs, ys))
        panel.plot(pale_x, pale_y, marker, markerfacecolor="#f4f4f4", markeredgewidth=1.2, **look)


def _value(run: FrontPoint, name: str | int) -> float:
    """The run's mean of a metric, or one of its weights; NaN, which is not drawn, where that is unknown."""
    if isinstance(name, int):
        return list(run.weights.values())[name] if run.weights else math.nan
    value = run.metrics[name].mean
    return math.nan if value is None else value


def seed_style(color: str) -> dict[str, Any]:
    """Marks of single seeds."""
    return {"color": color, "markersize": 3.2, "alpha": 0.45, "markeredgewidth": 0.0}
