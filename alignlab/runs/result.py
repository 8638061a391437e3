"""What a run leaves: one typed record, written as result.json and read by everything that looks at finished runs."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from alignlab.config.objectives import Objectives
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.io.hashes import SEAL, changed_files, sealed, unsealed

RESULT = "result.json"
TRACKER_ID = "wandb_id"
"""File of a run folder: what its tracker knows the run by. wandb was the first one."""
Metrics = dict[str, dict[str, Any]]
"""Metric -> {"mean", "ci95", "n", ...}; null where a number is unknown."""


@dataclass
class Outcome:
    """What a job fills in while it runs.

    What a result is *of* (objectives, beta, loss) is the policy's: a training job's own, an evaluated adapter's from
    its card, and nothing for the reference alone.
    """

    objectives: Objectives | None = None
    beta: float | None = None
    """KL strength of the policy, 1/nat."""
    loss_type: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    """What else tells policies of one w apart, e.g. {"sft_weight": 1.0}."""
    metrics: Metrics = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    """Objective -> the metric that says how good the policy is at it."""
    artifacts: dict[str, str] = field(default_factory=dict)
    """Name -> path relative to the run folder."""
    inputs: dict[str, Any] = field(default_factory=dict)
    extra: dict[str, Any] = field(default_factory=dict)


_MAPPINGS = ("recipe", "metrics", "axes", "artifacts", "files", "inputs", "seconds", "versions")
"""Fields of a result that map names to what they are."""


@dataclass(frozen=True)
class RunResult:
    """The record of one run. `status` is done, failed or interrupted; `extra` holds what single algorithms add."""

    status: str
    algorithm: str
    model: str = ""
    dataset: str | None = None
    seed: int | None = None
    w: float | list[float] | None = None
    weights: dict[str, float] | None = None
    beta: float | None = None
    loss_type: str | None = None
    recipe: dict[str, Any] = field(default_factory=dict)
    metrics: Metrics = field(default_factory=dict)
    axes: dict[str, str] = field(default_factory=dict)
    artifacts: dict[str, str] = field(default_factory=dict)
    files: dict[str, str] = field(default_factory=dict)
    """SHA-256 of every file that the run left for others, by its path in the run folder."""
    inputs: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunResult":
        """The result that a record says.

        Raises:
            ValueError: if a field that every run has is missing, or one that maps names is no object.
        """
        names = {item.name for item in fields(cls)} - {"extra"}
        missing = [name for name in ("status", "algorithm") if name not in record]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        wrong = [name for name in _MAPPINGS if not isinstance(record.get(name, {}), dict)]
        if wrong:
            raise ValueError(f"{wrong[0]}: must be an object")
        known = {name: value for name, value in record.items() if name in names}
        return cls(**known, extra={name: value for name, value in record.items() if name not in {*names, SEAL}})

    def to_json(self) -> dict[str, Any]:
        """The record: every field, and what the algorithm adds beside them."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        return {**own, **self.extra}


def write_result(folder: Path, result: RunResult) -> None:
    """Write result.json with its own hash, whole or not at all."""
    write_json(folder / RESULT, sealed(result.to_json()))


def read_result(folder: Path) -> RunResult | None:
    """The result of a run folder, None where there is none or it cannot be read."""
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return RunResult.from_json(unsealed(record)) if isinstance(record, dict) else None
    except (OSError, ValueError, TypeError):
        return None


def recorded_config(folder: Path) -> dict[str, Any]:
    """The plain settings of a run, from its config.json.

    Raises:
        ConfigError: if the file is gone or damaged.
    """
    file = folder / "config.json"
    try:
        return unsealed(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, AttributeError) as error:
        reason = "is gone" if isinstance(error, FileNotFoundError) else "is damaged"
        raise ConfigError(f"{file}: {reason}; run it again with its own command") from None


def known_config(folder: Path) -> dict[str, Any]:
    """The same, empty where it cannot be read: for what only shows it."""
    try:
        return recorded_config(folder)
    except ConfigError:
        return {}


@dataclass(frozen=True)
class Checked:
    """What was found of a run that has ended."""

    result: RunResult | None
    """Of a run that is done and whose files are the ones that it left, else None."""
    faults: dict[str, str] = field(default_factory=dict)
    """File -> what is wrong with it."""

    @property
    def fault(self) -> str | None:
        """The first fault in words, None where there is none."""
        return next((f"{name} {what}" for name, what in self.faults.items()), None)


def checked_result(folder: Path) -> Checked:
    """The result of a run that is done and whose files are as it left them; what is wrong where they are not."""
    result = read_result(folder)
    if result is None:
        return Checked(None, {RESULT: "is damaged"} if (folder / RESULT).exists() else {})
    if result.status != "done":
        return Checked(None)
    faults = dict(changed_files(folder, result.files))
    faults |= {path: "is gone" for path in result.artifacts.values() if not (folder / path).exists()}
    return Checked(None if faults else result, faults)


def finished_result(folder: Path) -> RunResult | None:
    """The result of a run that is done and whose files are as it left them, else None."""
    return checked_result(folder).result


def require_finished(key: str, folder: Path) -> RunResult:
    """The result of a finished run.

    Raises:
        ConfigError: `KEY=FOLDER: ...` if it holds none, or a file of it is gone or changed.
    """
    checked = checked_result(folder)
    if checked.result is None:
        raise ConfigError(f"{key}={folder}: {_remedy(checked.fault)}")
    return checked.result


def _remedy(fault: str | None) -> str:
    return "holds no finished run" if fault is None else f"{fault}; run it again with its own command"


def recorded_fault(path: Path, *, largest: int | None = None) -> str | None:
    """What is wrong with a file or folder that some run left, as that run's result.json recorded it.

    Args:
        path: anything; what lies in no run folder has no fault.
        largest: bytes of the largest file that is read.
    """
    path = path.absolute()
    for folder in list(path.parents)[:3]:
        result = read_result(folder)
        if result is not None:
            inner = path.relative_to(folder).as_posix()
            files = {name: one for name, one in result.files.items() if name == inner or name.startswith(f"{inner}/")}
            if largest is not None:
                files = {name: one for name, one in files.items() if _size(folder / name) <= largest}
            return next((f"{name} {fault}" for name, fault in changed_files(folder, files)), None)
    return None


def _size(path: Path) -> int:
    return path.stat().st_size if path.is_file() else 0
