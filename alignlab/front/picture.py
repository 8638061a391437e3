"""The front as a picture: objective against objective, and KL of each point from the reference."""

import itertools
import math
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, Literal

from alignlab.front.annotate import annotate
from alignlab.front.collect import REFERENCE as REFERENCE_RUN
from alignlab.front.collect import FrontPoint
from alignlab.front.figures import DPI, EXACT, FAINT, REFERENCE, Style, styles_of
from alignlab.front.metrics import ExactCurve
from alignlab.front.panels import HOLLOW, PREVIEW_LINE, draw_against_weight, draw_pair, draw_preview, seed_style
from alignlab.front.series import (
    ACCURACY,
    CHANCE,
    HELD_OUT_REWARD,
    PlotPoint,
    are_accuracies,
    held_out_metric,
    points_by_series,
    varying_weight,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.lines import Line2D

MEASURES = dict.fromkeys(("helpful", "safe", "brief"), "mean gold reward")
ENDINGS = {
    HELD_OUT_REWARD: "mean by the held-out scorer",
    "_accuracy": "share of pairs ranked right",
    "_margin": "mean reward margin",
}
EXACT_LABEL = "exact front (hollow: same w)"
PREVIEW_LABEL = "estimated front (algorithm=preview)"
KL_LABEL = r"KL($\pi\,\Vert\,\pi_{\mathrm{ref}}$) in nats (0 is the reference)"


def front_figure(
    points: Sequence[FrontPoint],
    *,
    exact: ExactCurve | None = None,
    reference: Sequence[float] | None = None,
    preview: ExactCurve | None = None,
    title: str = "",
    measures: Mapping[str, str] | None = None,
) -> "Figure":
    """One panel for each pair of axes; for two objectives one of KL against w, for more one of each against its weight.

    A bar is a point's own 95 % interval; for three or more seeds of a setting it is the t-interval over seeds, for two
    seeds there is none, and the seeds are shown as small points. For two objectives a line joins a series' points in
    the order of w, and `exact` is a line with hollow marks at the w's that were trained.

    Args:
        points: of one front, as `collect` returns them; higher is better on every axis.
        exact: the exact front, on the same axes, in reward units and nats.
        reference: the reference policy's mean on each axis.
        preview: the front estimated from the reference's samples, a broken line.
        title: one line above the panels.
        measures: what an axis measures, with its unit, for names that are not known here.

    Raises:
        ValueError: without points, with fewer than two axes, or where exact or reference are on other axes.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.layout_engine import ConstrainedLayoutEngine

    axes = _checked_axes(points, exact, reference)
    if reference is None and are_accuracies(axes):
        reference = [CHANCE] * len(axes)  # its reward for every response is 0, so every pair is a tie
    policies = [point for point in points if point.algorithm != REFERENCE_RUN]
    if not policies:  # every run failed: the reference alone, which is no series
        reference = reference or points[0].position
    series = points_by_series(policies)
    styles = styles_of({point.series: point.algorithm for point in policies})
    pairs = list(itertools.combinations(range(len(axes)), 2))
    weighed = _against_weights(policies, series, axes)
    figure = Figure(layout=ConstrainedLayoutEngine(w_pad=0.08, h_pad=0.06), dpi=DPI)
    FigureCanvasAgg(figure)
    panels = _panels(figure, len(pairs), len(weighed))
    shown_metrics = (*axes, *(metric for _, metric in weighed))
    names = {metric: _axis_label(metric, measures or {}) for metric in shown_metrics} | {"kl": KL_LABEL}
    labels = []
    for panel, (i, j) in zip(panels, pairs, strict=False):
        labels += draw_pair(panel, (i, j), axes, series, styles, exact=exact, reference=reference)
        draw_preview(panel, preview, axes[i], axes[j])
        panel.set(xlabel=names[axes[i]], ylabel=names[axes[j]])
    objectives = next((list(point.weights) for point in points if point.weights), list(axes))
    for panel, (index, metric) in zip(panels[len(pairs) :], weighed, strict=True):
        draw_against_weight(panel, index, metric, series, styles, exact=exact)
        draw_preview(panel, preview, index, metric)
        panel.set(xlabel=f"w: weight of '{_plain(objectives[index])}'", ylabel=names[metric])
    shown = objectives[varying_weight(points)]
    _finish(figure, title, _legend_handles(series, styles, exact, preview), _caption(series, shown, axes))
    annotate(figure, labels)
    return figure


def _against_weights(
    points: Sequence[FrontPoint], series: Mapping[str, list[PlotPoint]], axes: tuple[str, ...]
) -> list[tuple[int, str]]:
    """What is drawn against which weight, by its index: KL where there are two objectives, else each one's own mean."""
    if not any(point.weights for point in points):
        return []
    if len(axes) > 2:
        return list(enumerate(axes))
    known = {name for settings in series.values() for setting in settings for name in setting.metrics}
    wanted = ["kl", *map(held_out_metric, points[0].objectives)]
    return [(varying_weight(points), metric) for metric in wanted if metric in known]


def _checked_axes(
    points: Sequence[FrontPoint], exact: ExactCurve | None, reference: Sequence[float] | None
) -> tuple[str, ...]:
    if not points:
        raise ValueError("points: must hold at least one finished run")
    axes = points[0].axes
    if len(axes) < 2 or any(point.axes != axes for point in points):
        raise ValueError(f"points: must share two or more axes, the first has {axes}")
    if exact is not None and exact.axes != axes:
        raise ValueError(f"exact: must be on the axes {axes}, is on {exact.axes}")
    if reference is not None and len(reference) != len(axes):
        raise ValueError(f"reference={tuple(reference)}: must hold one value for each of {axes}")
    return axes


def _panels(figure: "Figure", num_pairs: int, num_weighed: int) -> "list[Axes]":
    """The panels, row by row; for one pair the one against w is the narrow one at its right."""
    num_panels = num_pairs + num_weighed
    num_columns = min(2 if num_pairs == 1 else 3, num_panels)
    num_rows = math.ceil(num_panels / num_columns)
    width = {1: 6.5, 2: 9.0, 3: 12.5}[num_columns]
    figure.set_size_inches(width, 4.9 if num_rows == 1 else 4.1 * num_rows + 0.5)
    ratios = [1.9, 1.0] if num_pairs == 1 and num_weighed else [1.0] * num_columns
    grid = figure.add_gridspec(num_rows, num_columns, width_ratios=ratios)
    panels = [figure.add_subplot(grid[divmod(index, num_columns)]) for index in range(num_panels)]
    for panel in panels:
        panel.grid(color="#e4e4e4", linewidth=0.7)
        panel.set_axisbelow(True)
        panel.spines[["top", "right"]].set_visible(False)
        panel.tick_params(labelsize=9)
    return panels


def _legend_handles(
    series: Mapping[str, list[PlotPoint]],
    styles: Mapping[str, Style],
    exact: ExactCurve | None,
    preview: ExactCurve | None,
) -> "list[Line2D]":
    from matplotlib.lines import Line2D

    handles = []
    for name, settings in series.items():
        color, marker = styles[name].color, styles[name].marker
        line: Literal["-", ""] = "-" if len(settings) > 1 and len(settings[0].weights) <= 2 else ""
        handles.append(Line2D([], [], color=color, marker=marker, linestyle=line, markersize=6.5, label=_plain(name)))
    if any(len(setting.runs) > 1 for settings in series.values() for setting in settings):
        handles.append(Line2D([], [], marker="o", linestyle="", **seed_style(FAINT), label="one seed"))
    if exact is not None:
        line = "-" if len(exact.axes) == 2 else ""
        style: dict[str, Any] = {"color": EXACT, "linewidth": 1.2}
        handles.append(Line2D([], [], marker="o", linestyle=line, **style, **HOLLOW, label=EXACT_LABEL))
    if preview is not None and len(preview.axes) == 2:
        handles.append(Line2D([], [], **PREVIEW_LINE, label=PREVIEW_LABEL))
    return handles


def _caption(series: Mapping[str, list[PlotPoint]], shown: str, axes: Sequence[str]) -> str:
    settings = [setting for group in series.values() for setting in group]
    parts = []
    labels = [setting.label for setting in settings if setting.label]
    if labels:
        several = any(" " in label for label in labels)
        parts.append("numbers: the weights, in hundredths" if several else f"numbers: w, the weight of '{shown}'")
    if any(interval.low is not None for setting in settings for interval in setting.metrics.values()):
        over = {"over seeds" if len(setting.runs) > 1 else "of each run's evaluation" for setting in settings}
        parts.append("bars: 95 % intervals " + " or ".join(sorted(over)))
    unproven = dict.fromkeys(name for setting in settings for run in setting.runs for name in run.unproven)
    if unproven:
        parts.append(f"reward not shown to agree with its labels: {', '.join(unproven)}")
    flattered = dict.fromkeys(name for setting in settings for run in setting.runs for name in run.flattered)
    if flattered:
        parts.append(f"scored by a reward that the policy was trained on: {', '.join(flattered)}")
    if any(setting.at_chance(axes) for setting in settings):
        parts.append("hollow: an accuracy that is not told from chance (.5)")
    lines = [part + ("\n" if index % 2 else ";  ") for index, part in enumerate(parts[:-1])] + parts[-1:]
    return _plain("".join(lines))


def front_subject(axes: Sequence[str]) -> str:
    """What a picture of these axes shows; accuracies say how a policy ranks texts of others, not what it writes."""
    if are_accuracies(axes):
        return "preference accuracy on held-out pairs"
    return "what safety costs in helpfulness" if len(axes) == 2 else f"the balance of {', '.join(axes)}"


def _finish(figure: "Figure", title: str, handles: "list[Line2D]", caption: str) -> None:
    """Title, and the legend below the panels, where it can hide nothing."""
    if title:
        figure.suptitle(_plain(title), fontsize=12)
    look: dict[str, Any] = {"ncols": min(5, len(handles) or 1), "frameon": False, "fontsize": 9.5, "title": caption}
    legend = figure.legend(handles=handles, loc="outside lower center", **look)
    legend.get_title().set(fontsize=8.5, color=REFERENCE)


def _axis_label(axis: str, measures: Mapping[str, str]) -> str:
    ending = next((text for end, text in ENDINGS.items() if axis.endswith(end)), "mean reward")
    better = "" if axis.endswith(ACCURACY) else " (higher is better)"
    return _plain(f"{axis}: {measures.get(axis) or MEASURES.get(axis, ending)}{better}")


def _plain(text: str) -> str:
    """The text without matplotlib reading a formula into its dollar signs."""
    return text.replace("$", r"\$")
