"""The front as a table for the terminal and as a CSV for everything else; failed runs are rows too."""

import csv
import io
import json
import os
import re
import unicodedata
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.front.catalogue import CHANGE
from alignlab.front.collect import Collection, FailedRun, FrontPoint
from alignlab.front.metrics import ExactCurve
from alignlab.front.series import (
    HELD_OUT_REWARD,
    PlotPoint,
    held_out_metric,
    is_at_chance,
    points_by_series,
    w_text,
    weight_label,
)
from alignlab.io.atomic import replacing
from alignlab.io.text import printable, printable_lines
from alignlab.stats import Interval

if TYPE_CHECKING:
    from rich.table import Table

KNOWN_METRICS = ("kl", "attained_share", "kl_to_optimum", "well_formed")
"""The metrics that follow the axes, in this order, wherever a run has them."""
QUALITY = ("tokens", "cut", "empty", "repetition", "over_refusal", "text_loss")
"""The metrics of a table of their own: what else moved."""
TITLES = {
    "kl": "KL to\nreference",
    "attained_share": "attained\nshare",
    "kl_to_optimum": "KL to\noptimum",
    "well_formed": "well-\nformed",
    "tokens": "tokens",
    "cut": "cut at\nthe limit",
    "empty": "empty",
    "repetition": "repeated\n4-word runs",
    "over_refusal": "over-\nrefusal",
    "text_loss": "text loss,\nnats/token",
}
SIGNS = "=+-@"
"""A text that begins with one of these is a formula to a spreadsheet."""
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.ASCII | re.IGNORECASE)
RUN_COLUMNS = ("folder", "status", "error", "algorithm", "variant", "model", "dataset", "w", "seed")
METRIC_COLUMNS = ("mean", "low", "high", "n", "groups", "missing")
ERROR_WIDTH = 24
"""Characters of a line of an error, at least."""
UNKNOWN = "-"
CHANCE_MARK = " ~.5"
"""After an accuracy whose interval holds one half."""


def front_table(collection: Collection, exact: ExactCurve | None = None) -> "Table":
    """One row a run: w, mean ± half the 95 % interval on each axis, the known metrics, and how the run ended.

    With `exact`, the axes and the KL show the exact front's value at the same weights in brackets. A dash is a value
    that is not known, `± ?` an interval that is not. Run and seed are shown where they differ.
    """
    from rich.table import Table
    from rich.text import Text

    axes = collection.axes
    present = {name for point in collection.points for name in point.metrics}
    objectives = collection.points[0].objectives if collection.points else ()
    held_out = [name for name in map(held_out_metric, objectives) if name in present]
    known = [*held_out, *(name for name in KNOWN_METRICS if name in present)]
    labels = _run_labels(collection)
    pooled = pooled_settings(collection)
    table = Table(caption=_caption(collection, known, exact))
    for title in (*labels, "w"):
        table.add_column(title, justify="left" if title == "run" else "right", no_wrap=True)
    for name in (*axes, *known):
        title = name.replace(HELD_OUT_REWARD, "\nheld-out\nscorer")
        table.add_column(TITLES.get(name, title), justify="right")
    table.add_column("status", min_width=ERROR_WIDTH if collection.failures else None)  # not a word a line
    for point in collection.points:
        cells = [labels[title](point) for title in labels] + [weight_label(point)]
        cells += [_cell(point.metrics.get(name), name) + _exact_cell(exact, point, name) for name in (*axes, *known)]
        table.add_row(*(Text(printable(cell)) for cell in (*cells, "done")))
    for setting in pooled:
        point = setting.runs[0]
        of_setting = {"run": point.series, "seed": "all"}
        cells = [*(of_setting[title] for title in labels), weight_label(point)]
        cells += [_cell(setting.metrics.get(name), name) for name in (*axes, *known)]
        table.add_row(*(Text(printable(cell), style="bold") for cell in (*cells, f"mean of {len(setting.runs)} seeds")))
    for run in collection.failures:  # Text, because an error may hold what rich would take for markup
        of_run = {"run": run.algorithm or run.folder.name, "seed": _seed(run.seed)}
        cells = [*(of_run[title] for title in labels), w_text(run.w), *[UNKNOWN] * (len(axes) + len(known))]
        error = Text(printable(f"{run.status}: {run.error}"), style="red")
        table.add_row(*(Text(printable(cell)) for cell in cells), error)
    return table


def pooled_settings(collection: Collection) -> list[PlotPoint]:
    """The settings that several seeds ran, as means over these."""
    settings = [setting for held in points_by_series(collection.points).values() for setting in held]
    return [setting for setting in settings if len(setting.runs) > 1]


def _caption(collection: Collection, known: Sequence[str], exact: ExactCurve | None) -> str:
    """What the cells hold; nothing of what the table does not show."""
    settings = [setting for held in points_by_series(collection.points).values() for setting in held]
    parts = [f"mean ± half of the 95 % interval, or its ends; higher is better: {', '.join(collection.axes)}"]
    parts += ["KL in nats"] if "kl" in known else []
    if any(_unscored(point.metrics.get(name)) for point in collection.points for name in (*collection.axes, *known)):
        parts.append("unscored: responses without a score, in no mean")
    parts += ["in brackets: the exact front"] if exact is not None else []
    if collection.unproven:
        parts.append(f"reward not shown to agree with its labels: {', '.join(collection.unproven)}")
    if collection.flattered:
        named = ", ".join(collection.flattered)
        parts.append(f"scored by a reward that the policy was trained on, which flatters it: {named}")
    if any(name.endswith(HELD_OUT_REWARD) for name in known):
        parts.append("held-out scorer: no policy was trained on it; what rises by the first scorer alone is not learnt")
    if any(setting.at_chance(collection.axes) for setting in settings):
        parts.append(f"{CHANCE_MARK.strip()}: not told from chance, which is the reference's own accuracy")
    return "; ".join(parts)


def differences_table(summary: Mapping[str, Any]) -> "Table | None":
    """Differences between neighbouring w, paired by prompt; None where no series has them.

    Args:
        summary: front.json.
    """
    from rich.table import Table
    from rich.text import Text

    axes = list(summary["axes"].values())
    rows = [(name, row) for name, one in summary.get("series", {}).items() for row in one["neighbours"] or ()]
    if not rows:
        return None
    several = len(summary["series"]) > 1
    table = Table(caption="differences between neighbouring w on the same prompts; p-values by Holm over w")
    for title in (*(["run"] if several else []), "w", *axes):
        table.add_column(title, justify="left" if title == "run" else "right")
    for name, row in rows:
        cells = [difference_text(row["differences"][axis]) for axis in axes]
        labels = [Text(printable(name))] if several else []
        table.add_row(*labels, f"{row['from']} to {row['to']}", *cells)
    return table


def difference_text(record: Mapping[str, Any] | None, *, digits: int = 2) -> str:
    """A difference with its interval and Holm's p-value; a dash for an unknown one."""
    if record is None:
        return UNKNOWN
    difference = Interval.from_record(record)
    p = record["p_holm"]
    if difference.mean is None or difference.bounds is None or p is None:
        return UNKNOWN
    told = ("p < .001" if p < 0.001 else f"p {p:.2g}") if record["told_apart"] else "not told apart"
    return f"{interval_text(difference, f'.{digits}f', sign='+')} ({told})"


def _run_labels(collection: Collection) -> dict[str, Callable[[FrontPoint], str]]:
    """The leading columns that tell runs apart: none where one algorithm ran with one seed."""
    labels: dict[str, Callable[[FrontPoint], str]] = {}
    if len({point.series for point in collection.points}) > 1:
        labels["run"] = lambda point: point.series
    if len({point.seed for point in collection.points}) > 1:
        labels["seed"] = lambda point: _seed(point.seed)
    return labels


def write_csv(collection: Collection, path: Path) -> Path:
    """Write one row a run, atomically; returns the path.

    Args:
        collection: of one front, or of failures alone.
        path: the file.
    """
    with replacing(path) as unfinished:
        unfinished.write_text("".join(csv_lines(collection, path.parent)), encoding="utf-8", newline="")
    return path


def csv_lines(collection: Collection, base: Path) -> list[str]:
    """front.csv as text: its head, then a row a run, the points first; each with its line end.

    Columns, in this order: `folder` (relative to the CSV), `status`, `error`, `algorithm`, `variant`, `model`,
    `dataset`, `w` (a list as JSON), `seed`; `weight_<objective>` in the order of the axes; then for every metric (the
    axes first, then KNOWN_METRICS and QUALITY, then the rest by name) `_mean`, `_low`, `_high`
    (95 %), `_n`, `_groups` (prompts) and `_missing` (values that could not be known). What is not known is an empty
    cell, never 0; a failed run has no metrics. Numbers are written in full. Text that a spreadsheet would take for a
    formula gets a leading ' (a folder: ./), and control characters show as their code; a folder's name stays as it is.

    Args:
        collection: of one front, or of failures alone.
        base: what the folders are relative to.
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
    rows += [_point_row(point, objectives, metrics, base=base) for point in collection.points]
    width = len(rows[0])
    rows += [_failed_row(run, width, base=base) for run in collection.failures]
    return [_csv_line([row[0], *(_safe(_shown(cell)) for cell in row[1:])]) for row in rows]


def _csv_line(cells: Sequence[object]) -> str:
    text = io.StringIO()
    csv.writer(text, lineterminator="\r\n").writerow(cells)  # so that a \r in a name is quoted too
    return text.getvalue().removesuffix("\r\n") + "\n"


def quality_table(collection: Collection) -> "Table | None":
    """What else moved: length, repetition, over-refusal and text loss; in parentheses the change from the reference.

    None where no run has any of them.
    """
    from rich.table import Table
    from rich.text import Text

    present = [name for name in QUALITY if any(name in point.metrics for point in collection.points)]
    if not present:
        return None
    labels = _run_labels(collection)
    has_changes = any(f"{name}{CHANGE}" in point.metrics for name in present for point in collection.points)
    change = "; in parentheses: change from the reference on the same prompts" if has_changes else ""
    table = Table(caption=f"beside the objectives, mean ± half of the 95 % interval, or its ends{change}")
    for title in (*labels, "w", *(TITLES[name] for name in present)):
        table.add_column(title, justify="left" if title == "run" else "right")
    for point in collection.points:
        cells = [labels[title](point) for title in labels] + [weight_label(point)]
        cells += [_cell(point.metrics.get(name), name) + _change_cell(point, name) for name in present]
        table.add_row(*(Text(printable_lines(cell)) for cell in cells))
    return table


def _change_cell(point: FrontPoint, name: str) -> str:
    change = point.metrics.get(f"{name}{CHANGE}")
    if change is None or change.mean is None or change.bounds is None:
        return ""
    return f"\n({interval_text(change, '.2g', sign='+')})"


def _metric_names(collection: Collection) -> list[str]:
    present = {name for point in collection.points for name in point.metrics}
    first = [name for name in (*collection.axes, *KNOWN_METRICS, *QUALITY) if name in present]
    return [*dict.fromkeys(first), *sorted(present.difference(first))]


def _point_row(point: FrontPoint, objectives: list[str], metrics: list[str], *, base: Path) -> Sequence[object]:
    cells: list[object] = [_folder(point.folder, base), "done", "", point.algorithm, point.variant]
    cells += [point.model, point.dataset, _w_json(point.w), point.seed]
    cells += [point.weights.get(name) for name in objectives]
    for name in metrics:
        metric = point.metrics.get(name)
        cells += [None] * len(METRIC_COLUMNS) if metric is None else [getattr(metric, key) for key in METRIC_COLUMNS]
    return cells


def _failed_row(run: FailedRun, width: int, *, base: Path) -> Sequence[object]:
    cells: list[object] = [_folder(run.folder, base), run.status, run.error, run.algorithm, None, None, None]
    cells += [_w_json(run.w), run.seed]
    return [*cells, *[None] * (width - len(cells))]


def _folder(folder: Path, base: Path) -> str:
    """The relative path of a run, which no spreadsheet takes for a formula and every reader for the same folder."""
    path = os.path.relpath(folder, base)
    return f"./{path}" if _is_formula(path) else path


def _shown(cell: object) -> object:
    return printable(cell) if isinstance(cell, str) else cell


def _safe(cell: object) -> object:
    """The cell as csv should write it; a text that starts as a formula does is marked as text."""
    return f"'{cell}" if isinstance(cell, str) and _is_formula(cell) else cell


def _is_formula(text: str) -> bool:
    """Whether some spreadsheet may take a text for a formula: they skip what is not seen, and read full-width signs."""
    if not text or _NUMBER.fullmatch(text):
        return False
    first = next((char for char in text if not (char.isspace() or unicodedata.category(char).startswith("C"))), " ")
    return unicodedata.normalize("NFKC", first) in SIGNS or text[0] in "\t\r\n\0"


def _w_json(w: float | tuple[float, ...] | None) -> float | str | None:
    return json.dumps(w) if isinstance(w, tuple) else w


def _seed(seed: int | None) -> str:
    return UNKNOWN if seed is None else str(seed)


def _cell(metric: Interval | None, name: str) -> str:
    if metric is None or metric.mean is None:
        return UNKNOWN
    return f"{interval_text(metric)}{CHANCE_MARK if is_at_chance(name, metric) else ''}{_unscored(metric)}"


def interval_text(metric: Interval, form: str = ".2f", *, sign: str = "") -> str:
    """A known mean with half its interval, or with both ends where they do not lie alike about it.

    Args:
        metric: the mean.
        form: of each number.
        sign: '+' shows that of the mean and of the ends.
    """
    half, mean = metric.half_width, metric.mean
    assert mean is not None
    if half is None or metric.bounds is None:
        return f"{mean:{sign}.3g} ± ?"
    low, high = metric.bounds
    if abs((low + high) / 2 - mean) > 0.1 * half:  # a share near 0 or 1
        return f"{mean:{sign}{form}} [{low:{sign}{form}}, {high:{sign}{form}}]"
    return f"{mean:{sign}{form}} ±{half:{form}}"


def _unscored(metric: Interval | None) -> str:
    return "" if metric is None or not metric.missing else f" ({metric.missing} unscored)"


def _exact_cell(exact: ExactCurve | None, point: FrontPoint, name: str) -> str:
    row = None if exact is None else exact.index_of(tuple(point.weights.values()))
    if exact is None or row is None or (name != "kl" and name not in exact.axes):
        return ""
    return f" ({exact.kl_K[row] if name == 'kl' else exact.means_KM[row, exact.axes.index(name)]:.2f})"
