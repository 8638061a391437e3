"""From run folders to one comparable set of points, with every run that could not be used accounted for."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from alignlab.io.hashes import changed_files, unsealed
from alignlab.stats import Interval

RESULT, GENERATIONS, SCORES = "result.json", "generations.jsonl", "scores.jsonl"
REFERENCE = "reference"
"""What the evaluation of a reference stands under, in place of an algorithm."""
COMPARED_INPUTS = ("model", "dataset", "scorers", "decoding", "prompts")
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
    objectives: tuple[str, ...] = ()
    """Of the axes, in their order."""
    model: str = ""
    dataset: str = ""
    beta: float | None = None
    loss_type: str = ""
    recipe: Mapping[str, object] | None = None
    """Settings of the training that make another series, such as its number of steps."""
    unproven: tuple[str, ...] = ()
    """Objectives whose reward was not shown to agree with its own labels."""
    scorers: Mapping[str, str] | None = None
    """Objective -> kind of what scored the policy's samples."""
    flattered: tuple[str, ...] = ()
    """Objectives that a reward scores which the policy was trained on."""
    variant: str = ""
    """What of beta, loss and recipe differs between the collected runs, e.g. 'beta=0.5'; names this run's series."""
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

    @property
    def references(self) -> tuple[FrontPoint, ...]:
        """Evaluations of the reference: one a seed."""
        return tuple(point for point in self.points if point.algorithm == REFERENCE)

    @property
    def policies(self) -> tuple[FrontPoint, ...]:
        """All points but the reference; the reference itself where there is nothing else."""
        return tuple(point for point in self.points if point.algorithm != REFERENCE) or self.points

    @property
    def flattered(self) -> list[str]:
        """Objectives that a reward scores which some policy was trained on."""
        return list(dict.fromkeys(name for point in self.points for name in point.flattered))

    @property
    def unproven(self) -> list[str]:
        """Objectives whose reward some run's own labels do not bear out."""
        return list(dict.fromkeys(name for point in self.points for name in point.unproven))


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
            are the same algorithm, beta, loss, recipe, weights and seed; names both folders. Failed runs are not
            compared.
    """
    points: list[FrontPoint] = []
    failures, others = [], []
    for folder in dict.fromkeys(Path(folder) for folder in folders):
        match _read(folder):
            case FrontPoint() as point:
                points.append(point)
            case FailedRun() as failure:
                failures.append(failure)
            case None:
                others.append(folder)
    points = _with_variants(_in_one_order(points))
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
        fault = _fault(folder, unsealed(record))
    except ValueError as error:
        return FailedRun(folder, "unreadable", f"{RESULT}: {error}; run it again")
    if fault is not None:
        return _failure(folder, record, f"{fault}; run it again")
    try:
        return _point(folder, record)
    except (ValueError, TypeError) as error:
        return _failure(folder, record, str(error))


def _fault(folder: Path, record: Mapping[str, object]) -> str | None:
    """What is wrong with the samples and scores that a front reads beside the result."""
    recorded = _mapping(record, "files")
    files = {name: str(recorded[name]) for name in (GENERATIONS, SCORES) if name in recorded}
    return next((f"{name} {fault}" for name, fault in changed_files(folder, files)), None)


def _point(folder: Path, record: Mapping[str, object]) -> FrontPoint | FailedRun | None:
    if record.get("status") != "done":
        return _failure(folder, record, str(record.get("error") or "no error recorded"))
    if not record.get("axes"):
        return None
    metrics = {name: _interval(name, value) for name, value in _mapping(record, "metrics").items()}
    axes = _axes(record["axes"], metrics)
    weights = _weights(_mapping(record, "weights"), axes)
    policy = _mapping(record, "policy")
    seed, inputs, beta = policy.get("seed", record.get("seed")), _mapping(record, "inputs"), record.get("beta")
    return FrontPoint(
        folder=folder,
        algorithm=str(policy.get("algorithm") or record.get("algorithm", "")),
        w=_w(record.get("w")),
        weights=weights,
        seed=seed if isinstance(seed, int) else None,
        axes=tuple(axes.values()),
        metrics=metrics,
        objectives=tuple(axes),
        model=str(record.get("model") or ""),
        dataset=str(record.get("dataset") or ""),
        beta=None if beta is None else _number("beta", beta),
        loss_type=str(record.get("loss_type") or ""),
        recipe=_mapping(record, "recipe"),
        unproven=_unproven(_mapping(record, "rewards")),
        scorers=_kinds(_mapping(record, "scorers")),
        flattered=_flattered(_mapping(record, "scorers")),
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


def _axes(axes: object, metrics: Mapping[str, Interval]) -> dict[str, str]:
    """Objective to metric, after it was checked that each metric has a known mean."""
    if isinstance(axes, list):
        raise ValueError(
            "axes is a list, as earlier versions wrote it, without objectives; run it again with force=true"
        )
    if not isinstance(axes, dict) or not all(isinstance(axis, str) for axis in axes.values()):
        raise ValueError(f"axes={axes!r:.80}: must map each objective to a metric")
    for axis in axes.values():
        if axis not in metrics:
            raise ValueError(f"metrics.{axis}: must be there, as it is an axis")
        if metrics[axis].mean is None:
            raise ValueError(f"metrics.{axis}: its mean is unknown, so the run has no position on the front")
    return axes


def _weights(weights: Mapping[str, object], axes: Mapping[str, str]) -> dict[str, float]:
    """Objective to weight in the order of the axes; empty where there are none."""
    if weights and set(weights) != set(axes):
        raise ValueError(f"axes of {', '.join(axes)}: must be of the weighted objectives, {', '.join(weights)}")
    return {name: _number(f"weights.{name}", weights[name]) for name in axes} if weights else {}


def _unproven(rewards: Mapping[str, object]) -> tuple[str, ...]:
    """Objectives whose reward's sign the run's held-out pairs (else its training pairs) did not show."""
    found = []
    for name, report in rewards.items():
        parts = [report.get(part) for part in ("held_out", "train")] if isinstance(report, dict) else []
        known = next((part for part in parts if isinstance(part, dict)), {})
        found += [name] if known.get("sign") == "not shown" else []
    return tuple(found)


def _kinds(scorers: Mapping[str, object]) -> dict[str, str]:
    """Objective -> kind of its scorer."""
    settings = {name: one.get("settings") for name, one in scorers.items() if isinstance(one, dict)}
    return {name: str(one.get("kind")) for name, one in settings.items() if isinstance(one, dict)}


def _flattered(scorers: Mapping[str, object]) -> tuple[str, ...]:
    """Objectives whose scorer is a reward that the policy was trained on."""
    return tuple(name for name, one in scorers.items() if isinstance(one, dict) and one.get("trained_on") is True)


def _in_one_order(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """The points with their objectives in the order of the first one; what each is of does not depend on an order."""
    found = []
    for point in points:
        order = points[0].objectives
        if point.objectives != order and set(point.objectives) == set(order):
            axis_of = dict(zip(point.objectives, point.axes, strict=True))
            weights = {name: point.weights[name] for name in order} if point.weights else {}
            point = replace(point, objectives=order, axes=tuple(axis_of[name] for name in order), weights=weights)
        found.append(point)
    return found


def _with_variants(points: Sequence[FrontPoint]) -> list[FrontPoint]:
    """Name in each point what tells its series apart: no line joins two of these.

    That is the beta where it is not the same in all points, and what of loss and recipe differs within an algorithm.
    """
    settings = [_settings(point) for point in points]
    values: dict[tuple[str, str], set[str]] = {}
    for point, held in zip(points, settings, strict=True):
        for name, value in held.items():
            values.setdefault(("" if name == "beta" else point.algorithm, name), set()).add(value)

    def told(point: FrontPoint, name: str) -> bool:
        return len(values["" if name == "beta" else point.algorithm, name]) > 1

    return [
        replace(point, variant=", ".join(f"{name}={value}" for name, value in held.items() if told(point, name)))
        for point, held in zip(points, settings, strict=True)
    ]


def _settings(point: FrontPoint) -> dict[str, str]:
    """Everything but the weights and the seed that makes a series, as text; what is unknown is left out."""
    beta = {} if point.beta is None else {"beta": f"{point.beta:g}"}
    loss = {"loss": point.loss_type} if point.loss_type else {}
    return {**beta, **loss, **{name: _one_line(str(value), 30) for name, value in (point.recipe or {}).items()}}


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
    if group == "axes":
        return "/".join("=".join(pair) for pair in zip(point.objectives, point.axes, strict=True))
    return str(getattr(point, name))


def _refuse_repeats(points: Sequence[FrontPoint]) -> None:
    """Raise if two runs would count as seeds of one setting although their seed is the same."""
    seen: dict[object, Path] = {}
    for point in (point for point in points if point.weights):
        key = (point.series, tuple(point.weights.items()), point.w, point.seed)
        if key in seen:
            raise ValueError(
                f"{point.series} w={point.w} seed={point.seed} is there twice, so something else differs: "
                f"{seen[key]} and {point.folder}; name the runs of one setting in algorithm.runs"
            )
        seen[key] = point.folder
