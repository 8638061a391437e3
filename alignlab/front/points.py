"""Runs and their points on a front: whose adapter a point is, and the several points of an adapter that follows w."""

import csv
import json
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.front.collect import find_runs
from alignlab.io.atomic import write_json

FRONT_CSV = "front.csv"
POINTS = "points.json"
"""Folders of the evaluations of a run's points, relative to the run's."""

MOST_LEVELS = 3
"""Between an adapter and the folder of its run: `adapter`, or `points/w=0.3/adapter`."""


def write_points(folder: Path, evaluations: Sequence[Path]) -> None:
    """Record which evaluations are a run's points.

    Args:
        folder: the run's.
        evaluations: their folders.
    """
    write_json(folder / POINTS, [os.path.relpath(path, folder) for path in evaluations])


def points_of(folder: Path) -> list[Path]:
    """The folders that a run gives a front: its evaluations where it has several points, else its own."""
    file = folder / POINTS
    if not file.is_file():
        return [folder]
    return [Path(os.path.normpath(folder / path)) for path in json.loads(file.read_text(encoding="utf-8"))]


def policy_adapter(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The adapter of a run's policy: the one that it evaluated, or its own; None where it has none.

    Args:
        folder: the run's.
        record: its result.json.
    """
    named = (record.get("policy") or {}).get("adapter") or (record.get("artifacts") or {}).get("adapter")
    return None if named is None else Path(os.path.normpath(folder / named))


def maker_of(adapter: Path, file: str) -> Path | None:
    """The nearest folder above an adapter that holds a file, such as its run's result.json; None where none does."""
    return next((one for one in adapter.parents[:MOST_LEVELS] if (one / file).is_file()), None)


def run_folders(roots: Sequence[Path]) -> list[Path]:
    """The folders that give a front its points: a front's own runs, and whatever runs lie below any other root."""
    found: list[Path] = []
    for root in roots:
        if (root / FRONT_CSV).is_file():
            with (root / FRONT_CSV).open(encoding="utf-8", newline="") as file:
                found += [Path(os.path.normpath(root / row["folder"])) for row in csv.DictReader(file)]
        elif root.is_dir():
            found += [point for folder in find_runs(root) for point in points_of(folder)]
    return list(dict.fromkeys(found))
