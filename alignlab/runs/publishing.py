"""What a tracker is told at the end: a run's metrics with their intervals and its samples, a sweep's front."""

import csv
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.config.recipe import TrackerSettings
from alignlab.io.jsonl import read_jsonl
from alignlab.runs.result import TRACKER_ID, RunResult
from alignlab.runs.trackers import Rows
from alignlab.runs.tracking import tracked_run

MOST_SAMPLES = 200
"""Rows of a run's table of samples."""


def publish_result(settings: TrackerSettings, run: Path, evaluated: Path, result: RunResult) -> None:
    """Add final metrics and samples to a run that has been tracked; nothing where it was not, or was told before.

    Args:
        settings: of the tracker.
        run: folder of the training.
        evaluated: folder of its evaluation, which may be the same.
        result: of the evaluation.
    """
    told = run / f"{TRACKER_ID}.told"
    ended = f"{settings.kind} {evaluated}"
    if not (run / TRACKER_ID).exists() or (told.exists() and told.read_text() == ended):
        return
    opened = tracked_run(settings, run)
    if opened is None:
        return
    for name, record in result.metrics.items():
        low, high = record.get("ci95") or (None, None)
        values = {"mean": record.get("mean"), "low": low, "high": high, "n": record.get("n")}
        opened.summarise({f"final/{name}/{part}": value for part, value in values.items() if value is not None})
    rows = list(_samples(evaluated))
    if rows:
        opened.table("samples", Rows(list(rows[0]), [list(row.values()) for row in rows]))
    adapter = run / "adapter"
    if 0 < _megabytes(adapter) <= settings.adapter_mb:
        opened.adapter(adapter)
    opened.finish()
    told.write_text(ended)


def publish_front(settings: TrackerSettings, folder: Path) -> None:
    """A sweep's front as a run of its own: the table, a plot of it, and the picture.

    Args:
        settings: of the tracker of the sweep's runs.
        folder: of the front.
    """
    opened = tracked_run(settings, folder, job_type="front")
    if opened is None:
        return
    with (folder / "front.csv").open(encoding="utf-8", newline="") as stream:
        columns, *lines = csv.reader(stream)
    table = Rows(columns, [[_number(cell) for cell in line] for line in lines])
    opened.table("front", table)
    axes = list(json.loads((folder / "front.json").read_text())["axes"].values())
    if len(axes) > 1:
        opened.scatter("front_plot", table, x=f"{axes[0]}_mean", y=f"{axes[1]}_mean")
    if (folder / "front.png").exists():
        opened.picture("front_picture", folder / "front.png")
    opened.finish()


def _megabytes(folder: Path) -> float:
    """Size of a folder's files; 0 where there are none."""
    return sum(file.stat().st_size for file in folder.rglob("*") if file.is_file()) / 1e6


def _samples(folder: Path) -> Iterator[dict[str, Any]]:
    """Prompt, response and scores of the first samples, every row with the same columns."""
    scores = {row["id"]: row for row in _rows(folder / "scores.jsonl")}
    names = sorted({name for row in scores.values() for name in row if name != "id"})
    for row in _rows(folder / "generations.jsonl")[:MOST_SAMPLES]:
        own = scores.get(row.get("id"), {})
        prompt = row["prompt"] if isinstance(row["prompt"], str) else json.dumps(row["prompt"], ensure_ascii=False)
        yield {"prompt": prompt, "response": row["response"], **{name: own.get(name) for name in names}}


def _rows(file: Path) -> list[dict[str, Any]]:
    return read_jsonl(file) if file.exists() else []


def _number(cell: str) -> float | str | None:
    """A cell of a CSV file as a tracker plots it."""
    try:
        return float(cell)
    except ValueError:
        return cell or None
