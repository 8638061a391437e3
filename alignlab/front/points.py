"""A run that has several points on a front: an adapter that is a function of w, evaluated at some of them."""

import json
import os
from collections.abc import Sequence
from pathlib import Path

from alignlab.io.atomic import write_json

POINTS = "points.json"
"""Folders of the evaluations of a run's points, relative to the run's."""


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
