"""The front that `algorithm=preview` estimated for the same model, data and scorers, as a line beside the runs."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.front.collect import COMPARED_INPUTS, Collection, FrontPoint, find_runs
from alignlab.front.metrics import ExactCurve
from alignlab.runs.progress import say
from alignlab.runs.result import finished_result

PREVIEW_JSON = "preview.json"
OPTIMUM = "optimum"
"""The points of preview.json that are the estimated optimum; others are best-of-n."""


def find_preview(root: Path, collection: Collection) -> ExactCurve | None:
    """The estimated front on the collection's axes; None unless a preview with its inputs and its one beta was run.

    None where a run is normalised too: the same w then weighs other units.

    Args:
        root: folder of the previews of this model and data.
        collection: of one front, with at least one point.
    """
    if any((point.recipe or {}).get("normalised") for point in collection.points):
        if root.is_dir() and find_runs(root):
            say("no line of algorithm=preview: its w weighs the scores, that of a normalised run other units")
        return None
    betas = {point.beta for point in collection.points if point.beta is not None}
    folders = find_runs(root) if root.is_dir() and len(betas) == 1 else []
    found = [_read(folder, collection.points[0], *betas) for folder in folders]
    return next((curve for curve in reversed(found) if curve is not None), None)


def _read(folder: Path, point: FrontPoint, beta: float) -> ExactCurve | None:
    result = finished_result(folder)
    if result is None or not _same_inputs(result.inputs, point.inputs or {}):
        return None
    try:
        record = json.loads((folder / PREVIEW_JSON).read_text(encoding="utf-8"))
        rows = [row for row in record["points"] if row["point"] == OPTIMUM and row["kl"] is not None]
        if record["beta"] != beta or len(rows) < 2 or any(set(row["scores"]) != set(point.objectives) for row in rows):
            return None
        return _curve(rows, point)
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _curve(rows: list[dict[str, Any]], point: FrontPoint) -> ExactCurve:
    weights = [[row["weights"][name] for name in point.objectives] for row in rows]
    means = [[row["scores"][name]["mean"] for name in point.objectives] for row in rows]
    kl = [row["kl"]["mean"] for row in rows]
    return ExactCurve(point.axes, np.array(weights), np.array(means), np.array(kl))


def _same_inputs(one: Mapping[str, Any], other: Mapping[str, Any]) -> bool:
    """Whether two evaluations are of one reference, data, scorers and decoding; each must say its scorers."""
    for name in COMPARED_INPUTS:
        values = [_comparable(name, inputs.get(name)) for inputs in (one, other)]
        if values[0] != values[1] and (None not in values or name == "scorers"):
            return False
    return True


def _comparable(name: str, value: object) -> object:
    """An input without the number of samples, in which a preview differs from the runs."""
    if name != "decoding" or not isinstance(value, str):
        return value
    return {key: part for key, part in json.loads(value).items() if key != "samples"}
