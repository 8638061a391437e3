"""The front as a table for the terminal and as a CSV for everything else; failed runs are rows too."""

import csv
import io
import json
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.front.collect import Collection, FailedRun, FrontPoint
from alignlab.front.metrics import ExactCurve
from alignlab.io.atomic import replacing
from alignlab.stats import Interval

if TYPE_CHECKING:
    from rich.table import Table

KNOWN_METRICS = ("kl", "attained_share", "kl_to_optimum", "well_formed")
"""The metrics that follow the axes, in this order, wherever a run has them."""
TITLES = {
    "kl": "KL to\nreference",
    "attained_share": "attained\nshare",
    "kl_to_optimum": "KL to\noptimum",
    "well_formed": "well-\nformed",
}
RUN_COLUMNS = ("folder", "status", "error", "algorithm", "variant", "model", "dataset", "w", "seed")
METRIC_COLUMNS = ("mean", "low", "high", "n", "missing")
UNKNOWN = "-"


def front_table(collection: Collection, exact: ExactCurve | None = None) -> "Table":
    """One row a run: w, mean ± half the 95 % interval on each axis, the known metrics, and how the run ended.

    With `exact`, the axes and the KL show the exact front's value at the same weights in brackets. A dash is a value
    that is not known, `± ?` an interval that is not. Run and seed are shown where they differ.
    """
    from rich.table import Table
    from rich.text import Text

    axes = collection.axes
    known = [name for name in KNOWN_METRICS if any(name in point.metrics for point in collection.points)]
    labels = _run_labels(collection)
    caption = f"mean ± half of the 95 % interval; higher is better: {', '.join(axes)}"
    caption += "; KL in nats" if "kl" in known else ""
    table = Table(caption=caption + ("; in brackets: the exact front" if exact is not None else ""))
    for title in (*labels, "w"):
        table.add_column(title, justify="left" if title == "run" else "right", no_wrap=True)
    for name in (*axes, *known):
        table.add_column(TITLES.get(name, name), justify="right")
    table.add_column("status")
    for point in collection.points:
        cells = [labels[title](point) for title in labels] + [weight_label(point)]
        cells += [_cell(point.metrics.get(name)) + _exact_cell(exact, point, name) for name in (*axes, *known)]
        table.add_row(*(Text(cell) for cell in (*cells, "done")))
    for run in collection.failures:  # Text, because an error may hold what rich would take for markup
        of_run = {"run": run.algorithm or run.folder.name, "seed": _seed(run.seed)}
        cells = [*(of_run[title] for title in labels), _w_text(run.w), *[UNKNOWN] * (len(axes) + len(known))]
        table.add_row(*(Text(cell) for cell in cells), Text(f"{run.status}: {run.error}", style="red"))
    return table


def _run_labels(collection: Collection) -> dict[str, Callable[[FrontPoint], str]]:
    """The leading columns that tell runs apart: none where one algorithm ran with one seed."""
    labels: dict[str, Callable[[FrontPoint], str]] = {}
    if len({point.series for point in collection.points}) > 1:
        labels["run"] = lambda point: point.series
    if len({point.seed for point in collection.points}) > 1:
        labels["seed"] = lambda point: _seed(point.seed)
    return labels


def weight_label(point: FrontPoint) -> str:
    """The first weight where it says the other (two that sum to 1), else all; a dash for a policy without weights."""
    return _w_text(point.first_weight if _says_all(point) else tuple(point.weights.values()))


def short_weights(point: FrontPoint) -> str:
    """The same for a picture: several weights in hundredths, `80 10 10`."""
    if _says_all(point):
        return _w_text(point.first_weight)
    return " ".join(f"{100 * weight:.3g}" for weight in point.weights.values())


def _says_all(point: FrontPoint) -> bool:
    return len(point.weights) <= 2 and (len(point.weights) < 2 or abs(sum(point.weights.values()) - 1) < 1e-6)


def varying_weight(points: Sequence[FrontPoint]) -> int:
    """The place of the first objective whose weight is not the same in all points, which `w` moves; 0 if none is."""
    columns = zip(*(tuple(point.weights.values()) for point in points if point.weights), strict=True)
    return next((place for place, column in enumerate(columns) if len(set(column)) > 1), 0)


def write_csv(collection: Collection, path: Path) -> Path:
    """Write one row a run, atomically; returns the path.

    Columns, in this order: `folder` (relative to the CSV), `status`, `error`, `algorithm`, `variant`, `model`,
    `dataset`, `w` (a list as JSON), `seed`; `weight_<objective>` in the order of the axes; then for every metric (the
    axes first, then kl, attained_share, kl_to_optimum, well_formed, then the rest by name) `_mean`, `_low`, `_high`
    (95 %), `_n` and `_missing` (values that could not be known). What is not known is an empty cell, never 0; a failed
    run has no metrics. Numbers are written in full. Text that a spreadsheet would take for a formula gets a leading '.
    """
    objectives = list(dict.fromkeys(name for point in collection.points for name in point.weights))
    metrics = _metric_names(collection)
    rows: list[Sequence[object]] = [
        (
            *RUN_COLUMNS,
            *(f"weight_{name}" for name in objectives),
            *(f"{name}_{column}" for name in metrics for column in METRIC_COLUMNS),
        )
    ]
    rows += [_point_row(point, objectives, metrics, base=path.parent) for point in collection.points]
    width = len(rows[0])
    rows += [_failed_row(run, width, base=path.parent) for run in collection.failures]
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([_safe(cell) for cell in row] for row in rows)
    with replacing(path) as unfinished:
        unfinished.write_text(text.getvalue(), encoding="utf-8", newline="")
    return path


def _metric_names(collection: Collection) -> list[str]:
    present = {name for point in collection.points for name in point.metrics}
    first = [name for name in (*collection.axes, *KNOWN_METRICS) if name in present]
    return [*dict.fromkeys(first), *sorted(present.difference(first))]


def _point_row(point: FrontPoint, objectives: list[str], metrics: list[str], *, base: Path) -> Sequence[object]:
    cells: list[object] = [os.path.relpath(point.folder, base), "done", "", point.algorithm, point.variant]
    cells += [point.model, point.dataset, _w_json(point.w), point.seed]
    cells += [point.weights.get(name) for name in objectives]
    for name in metrics:
        metric = point.metrics.get(name)
        cells += [None] * len(METRIC_COLUMNS) if metric is None else [getattr(metric, key) for key in METRIC_COLUMNS]
    return cells


def _failed_row(run: FailedRun, width: int, *, base: Path) -> Sequence[object]:
    cells: list[object] = [os.path.relpath(run.folder, base), run.status, run.error, run.algorithm, None, None, None]
    cells += [_w_json(run.w), run.seed]
    return [*cells, *[None] * (width - len(cells))]


def _safe(cell: object) -> object:
    """The cell as csv should write it; a text that starts as a formula does is marked as text."""
    if not isinstance(cell, str) or not cell.startswith(("=", "+", "-", "@", "\t", "\r")):
        return cell
    try:
        float(cell)
    except ValueError:
        return "'" + cell
    return cell


def _w_json(w: float | tuple[float, ...] | None) -> float | str | None:
    return json.dumps(w) if isinstance(w, tuple) else w


def _w_text(w: float | tuple[float, ...] | None) -> str:
    if w is None:
        return UNKNOWN
    return ", ".join(f"{part:g}" for part in w) if isinstance(w, tuple) else f"{w:g}"


def _seed(seed: int | None) -> str:
    return UNKNOWN if seed is None else str(seed)


def _cell(metric: Interval | None) -> str:
    if metric is None or metric.mean is None:
        return UNKNOWN
    half = metric.half_width
    return f"{metric.mean:.3g} ± ?" if half is None else f"{metric.mean:.2f} ±{half:.2f}"


def _exact_cell(exact: ExactCurve | None, point: FrontPoint, name: str) -> str:
    row = None if exact is None else exact.index_of(tuple(point.weights.values()))
    if exact is None or row is None or (name != "kl" and name not in exact.axes):
        return ""
    return f" ({exact.kl_K[row] if name == 'kl' else exact.means_KM[row, exact.axes.index(name)]:.2f})"
