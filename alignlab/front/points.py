"""Runs and their points on a front: whose adapter a point is, and the several points of an adapter that follows w."""

import csv
import json
import os
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError
from alignlab.front.collect import RESULT, find_runs
from alignlab.io.atomic import write_json
from alignlab.runs.policy import policy_adapter

FRONT_CSV = "front.csv"
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


def run_folders(roots: Sequence[Path]) -> list[Path]:
    """The folders that give a front its points: a front's own runs, and whatever runs lie below any other root."""
    found: list[Path] = []
    for root in roots:
        if (root / FRONT_CSV).is_file():
            with (root / FRONT_CSV).open(encoding="utf-8", newline="") as file:
                named = [row.get("folder") for row in csv.DictReader(file)]
            if not all(named):
                raise ConfigError(f"{root / FRONT_CSV}: a row names no folder of a run; write the front again")
            found += [Path(os.path.normpath(root / str(name))) for name in named]
        elif root.is_dir():
            found += [point for folder in find_runs(root) for point in points_of(folder)]
    return list(dict.fromkeys(found))


def scored_beside(folders: Sequence[Path]) -> list[Path]:
    """The folders, where some have scores and others accuracies alone each of these by its evaluation of the same kind.

    A policy's evaluation is looked for in the root in which its run lies. What has none stays as it is.

    Args:
        folders: of runs that somebody named.
    """
    own = {_scoring(_finished(folder)) for folder in folders} - {None}
    if not own:
        return list(folders)
    found = list(folders)
    for evaluations in dict.fromkeys(map(evaluations_of, filter(has_accuracies, folders))):
        if evaluations is not None:
            found = scored_instead(found, evaluations, like=own)
    return found


def evaluations_of(folder: Path) -> Path | None:
    """Where evaluations of a run's policy lie by default: ROOT/evaluate/MODEL/DATA; None for a run elsewhere."""
    algorithm = _finished(folder).get("algorithm")
    home = next((one for one in folder.parents if one.name == algorithm), None)
    return None if home is None else Path(home.parent, "evaluate", *folder.relative_to(home).parts[:2])


def scored_instead(folders: Sequence[Path], evaluations: Path, *, like: Collection[object] = ()) -> list[Path]:
    """The folders, where a run has accuracies alone the evaluation that scored what its policy says, if there is one.

    Evaluations by other scorers, samples or prompts cannot share a front: those are taken that score most policies,
    the newest of them where several do. The reference's evaluation by the same scorers joins them.

    Args:
        folders: of runs.
        evaluations: the folder below which runs of algorithm=evaluate lie.
        like: scorers, samples and prompts, as `_scoring` has them, beside which alone others may stand; empty for any.
    """
    scored: dict[tuple[str, ...], dict[Path | None, Path]] = {}
    found = find_runs(evaluations) if evaluations.is_dir() else []
    for folder in sorted(found, key=lambda one: (one / RESULT).stat().st_mtime):
        record = _finished(folder)
        scoring = _scoring(record)
        if scoring is not None and (not like or scoring in like):
            policies = scored.pop(scoring, {})  # the newest scoring stands last
            scored[scoring] = policies | {policy_adapter(folder, record): folder}
    adapters = {folder: policy_adapter(folder, _finished(folder)) for folder in folders if has_accuracies(folder)}
    covered = {
        scoring: sum(one in policies for one in adapters.values() if one) for scoring, policies in scored.items()
    }
    if not any(covered.values()):
        return list(folders)
    chosen = scored[max(reversed(covered), key=covered.__getitem__)]
    replaced = [chosen.get(adapters[folder], folder) if adapters.get(folder) else folder for folder in folders]
    return list(dict.fromkeys([*replaced, *([chosen[None]] if None in chosen else [])]))


def _scoring(record: Mapping[str, Any]) -> tuple[str, ...] | None:
    """Scorers, samples and prompts of a finished run; None where nothing was scored."""
    inputs = record.get("inputs") or {}
    return (
        tuple(inputs.get(name) or "" for name in ("scorers", "decoding", "prompts")) if inputs.get("scorers") else None
    )


def _finished(folder: Path) -> Mapping[str, Any]:
    """A run's record; empty where it is torn, or the run is not done."""
    try:
        record: Mapping[str, Any] = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if record.get("status") == "done" else {}


def has_scores(folder: Path) -> bool:
    """Whether a finished run's policy was sampled and scored."""
    return _scoring(_finished(folder)) is not None


def has_accuracies(folder: Path) -> bool:
    """Whether all that a finished run measured its policy by is how it ranks held-out responses."""
    axes = (_finished(folder).get("axes") or {}).values()
    return bool(axes) and all(str(metric).endswith("_accuracy") for metric in axes)
