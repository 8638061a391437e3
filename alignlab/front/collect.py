"""From run folders to one comparable set of points, with every run that could not be used accounted for."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.stats import Interval

RESULT = "result.json"
COMPARED_INPUTS = ("model", "dataset")
"""The input hashes that must agree on one front. Others (a margin adapter's) may differ between its points."""


@dataclass(frozen=True)
class FrontPoint:
    """One finished run whose position on every axis is known."""

    folder: Path
    algorithm: str
    w: float | tuple[float, ...] | None
    weights: Mapping[str, float]
    """Objective to weight, in the order of `axes`; empty for a policy that has no weights, such as the reference."""
    seed: int | None
    axes: tuple[str, ...]
    """The metric of each objective; higher is better."""
    metrics: Mapping[str, Interval]
    model: str = ""
    dataset: str = ""
    variant: str = ""
    """What else tells this run's series from others of its algorithm, e.g. 'beta=0.5'; may be absent from a result."""
    inputs: Mapping[str, str] | None = None

    @property
    def first_weight(self) -> float | None:
        """The weight of the first objective, which is what `w` means for two objectives."""
        return next(iter(self.weights.values()), self.w if isinstance(self.w, float) else None)

    @property
    def series(self) -> str:
        """The name under which this run's points belong together: its algorithm, and variant if it has one."""
        return f"{self.algorithm}, {self.variant}" if self.variant else self.algorithm

    @property
    def position(self) -> tuple[float, ...]:
        """The mean on each axis; known for every point that `collect` returns."""
        means = (self.metrics[axis].mean for axis in self.axes)
        return tuple(mean for mean in means if mean is not None)


@dataclass(frozen=True)
class FailedRun:
    """A run that gives no point, and why, in one line."""

    folder: Path
    status: str
    """'failed' or 'interrupted' as the run recorded; 'missing', 'unreadable'; 'done' where an axis is unknown."""
    error: str
    algorithm: str = ""
    w: float | tuple[float, ...] | None = None
    seed: int | None = None


@dataclass(frozen=True)
class Collection:
    """Points that may be compared (one model, one dataset, the same axes), and the runs that gave none."""

    points: tuple[FrontPoint, ...]
    """Sorted by the weight of the first objective (then the others'), then seed; points without weights last."""
    failures: tuple[FailedRun, ...] = ()
    others: tuple[Path, ...] = ()
    """Finished runs that record no axes, such as a reward model: they are no policies on a front."""

    @property
    def axes(self) -> tuple[str, ...]:
        """The axes that all points share; empty without points."""
        return self.points[0].axes if self.points else ()


def find_runs(root: Path) -> list[Path]:
    """The folders at or below `root` that hold a result.json, sorted.

    Raises:
        ValueError: if root is not a folder.
    """
    if not root.is_dir():
        raise ValueError(f"{root}: must be a folder with runs below it")
    return sorted(file.parent for file in root.rglob(RESULT))


def collect(folders: Iterable[Path], *, compared_inputs: Sequence[str] = COMPARED_INPUTS) -> Collection:
    """Read each folder's result.json; a run that is missing, torn or failed goes to `failures` and stops nothing.

    Args:
        folders: run folders; one named twice counts once.
        compared_inputs: names of input hashes that must agree wherever two runs both record them.

    Raises:
        ValueError: if two runs differ in model, dataset, axes or a compared input, or if two runs with weights
            are the same algorithm, variant, weights and seed; names both folders. Failed runs are not compared.
    """
    points, failures, others = [], [], []
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        match _read(folder):
            case FrontPoint() as point:
                points.append(point)
            case FailedRun() as failure:
                failures.append(failure)
            case None:
                others.append(folder)
    points.sort(key=_order)
    _refuse_mixtures(points, compared_inputs)
    _refuse_repeats(points)
    return Collection(tuple(points), tuple(failures), tuple(others))


def _read(folder: Path) -> FrontPoint | FailedRun | None:
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except FileNotFoundError:
        return FailedRun(folder, "missing", f"no {RESULT}")
    except (OSError, ValueError, RecursionError) as error:  # ValueError covers torn JSON and bytes that are not UTF-8
        return FailedRun(folder, "unreadable", _one_line(f"{RESULT}: {error}"))
    if not isinstance(record, dict):
        return FailedRun(folder, "unreadable", f"{RESULT}: must be an object, is {type(record).__name__}")
    try:
        return _point(folder, record)
    except (ValueError, TypeError) as error:
        return _failure(folder, record, str(error))


def _point(folder: Path, record: Mapping[str, object]) -> FrontPoint | FailedRun | None:
    if record.get("status") != "done":
        return _failure(folder, record, str(record.get("error") or "no error recorded"))
    if not record.get("axes"):
        return None
    metrics = {name: _interval(name, value) for name, value in _mapping(record, "metrics").items()}
    weights = {name: _number(f"weights.{name}", value) for name, value in _mapping(record, "weights").items()}
    seed, inputs = record.get("seed"), _mapping(record, "inputs")
    return FrontPoint(
        folder=folder,
        algorithm=str(record.get("algorithm", "")),
        w=_w(record.get("w")),
        weights=weights,
        seed=seed if isinstance(seed, int) else None,
        axes=_axes(record["axes"], weights, metrics),
        metrics=metrics,
        model=str(record.get("model") or ""),
        dataset=str(record.get("dataset") or ""),
        variant="" if record.get("beta") is None else f"beta={record['beta']:g}",
        inputs={name: str(value) for name, value in inputs.items()},
    )


def _failure(folder: Path, record: Mapping[str, object], error: str) -> FailedRun:
    """A failed run with what little of its record can be trusted."""
    try:
        w = _w(record.get("w"))
    except ValueError:
        w = None
    seed = record.get("seed")
    return FailedRun(
        folder=folder,
        status=str(record.get("status") or "unreadable"),
        error=_one_line(error),
        algorithm=str(record.get("algorithm") or ""),
        w=w,
        seed=seed if isinstance(seed, int) else None,
    )


def _axes(axes: object, weights: Mapping[str, float], metrics: Mapping[str, Interval]) -> tuple[str, ...]:
    """The axes' names, after it was checked that each has a weight and a known mean."""
    if isinstance(axes, list):
        raise ValueError("axes: were written by an earlier version as a list; run it again with force=true")
    if not isinstance(axes, dict) or not all(isinstance(axis, str) for axis in axes.values()):
        raise ValueError(f"axes={axes!r:.80}: must map each objective to a metric")
    if weights and set(weights) != set(axes):
        raise ValueError(f"axes={axes}: must be one metric an objective, the objectives are {', '.join(weights)}")
    axes = [str(axes[name]) for name in weights or axes]
    for axis in axes:
        if axis not in metrics:
            raise ValueError(f"metrics.{axis}: must be there, as it is an axis")
        if metrics[axis].mean is None:
            raise ValueError(f"metrics.{axis}: its mean is unknown, so the run has no place on the front")
    return tuple(axes)


def _interval(name: str, record: object) -> Interval:
    try:
        return Interval.from_record(record)
    except ValueError as error:
        raise ValueError(f"metrics.{name}: {error}") from error


def _mapping(record: Mapping[str, object], key: str) -> Mapping[str, object]:
    value = record.get(key) or {}
    if not isinstance(value, dict):
        raise ValueError(f"{key}: must be an object, is {type(value).__name__}")
    return value


def _number(name: str, value: object) -> float:
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"{name}={value!r:.40}: must be a number")
    return float(value)


def _w(value: object) -> float | tuple[float, ...] | None:
    if value is None:
        return None
    return tuple(_number("w", part) for part in value) if isinstance(value, list) else _number("w", value)


def _one_line(text: str, limit: int = 200) -> str:
    line = " ".join(text.split())
    return line if len(line) <= limit else line[: limit - 3] + "..."


def _order(point: FrontPoint) -> tuple[bool, tuple[float, ...], int, str, str]:
    first = point.first_weight
    weights = tuple(point.weights.values()) or (() if first is None else (first,))
    return first is None, weights, -1 if point.seed is None else point.seed, point.series, str(point.folder)


def _refuse_mixtures(points: Sequence[FrontPoint], compared_inputs: Sequence[str]) -> None:
    """Raise for the first run that differs from the majority in what must agree."""
    for name in ("axes", "model", "dataset", *(f"inputs.{key}" for key in compared_inputs)):
        values = {point.folder: _compared(point, name) for point in points}
        known = Counter(value for value in values.values() if value)
        if len(known) < 2:
            continue
        usual, odd = known.most_common()[0][0], known.most_common()[-1][0]
        one = next(folder for folder, value in values.items() if value == usual)
        other = next(folder for folder, value in values.items() if value == odd)
        raise ValueError(
            f"runs of different {name} cannot share a front: {usual} ({known[usual]} runs, e.g. {one}) "
            f"and {odd} ({known[odd]} runs, e.g. {other}); collect them apart"
        )


def _compared(point: FrontPoint, name: str) -> str:
    """The value that must agree, or '' where the run does not record it."""
    group, _, key = name.partition(".")
    if group == "inputs":
        return (point.inputs or {}).get(key, "")
    return "/".join(point.axes) if group == "axes" else str(getattr(point, name))


def _refuse_repeats(points: Sequence[FrontPoint]) -> None:
    """Raise if two runs would count as seeds of one setting although their seed is the same."""
    seen: dict[object, Path] = {}
    for point in (point for point in points if point.weights):
        key = (point.series, tuple(point.weights.items()), point.w, point.seed)
        if key in seen:
            raise ValueError(
                f"{point.series} w={point.w} seed={point.seed} is there twice, so something else differs: "
                f"{seen[key]} and {point.folder}; name the runs of one setting, or give each a variant"
            )
        seen[key] = point.folder
