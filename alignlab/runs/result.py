"""What a run leaves: one typed record, written as result.json and read by everything that looks at finished runs."""

import json
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from alignlab.config.objectives import Objectives
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json

RESULT = "result.json"
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
    inputs: dict[str, Any] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    versions: dict[str, str | None] = field(default_factory=dict)
    error: str | None = None
    extra: dict[str, Any] = field(default_factory=dict)

    @classmethod
    def from_json(cls, record: dict[str, Any]) -> "RunResult":
        """The result that a record says.

        Raises:
            ValueError: if a field that every run has is missing.
        """
        names = {item.name for item in fields(cls)} - {"extra"}
        missing = [name for name in ("status", "algorithm") if name not in record]
        if missing:
            raise ValueError(f"{missing[0]} is missing")
        known = {name: value for name, value in record.items() if name in names}
        return cls(**known, extra={name: value for name, value in record.items() if name not in names})

    def to_json(self) -> dict[str, Any]:
        """The record: every field, and what the algorithm adds beside them."""
        own = {item.name: getattr(self, item.name) for item in fields(self) if item.name != "extra"}
        return {**own, **self.extra}


def write_result(folder: Path, result: RunResult) -> None:
    """Write result.json, whole or not at all."""
    write_json(folder / RESULT, result.to_json())


def read_result(folder: Path) -> RunResult | None:
    """The result of a run folder, None where there is none or it cannot be read."""
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
        return RunResult.from_json(record) if isinstance(record, dict) else None
    except (OSError, ValueError, TypeError):
        return None


def finished_result(folder: Path) -> RunResult | None:
    """The result of a run that is done and whose artifacts are there, else None."""
    result = read_result(folder)
    if result is None or result.status != "done":
        return None
    return result if all((folder / path).exists() for path in result.artifacts.values()) else None


def require_finished(key: str, folder: Path) -> RunResult:
    """The result of a finished run.

    Raises:
        ConfigError: `KEY=FOLDER: ...` if it holds none.
    """
    result = finished_result(folder)
    if result is None:
        raise ConfigError(f"{key}={folder}: holds no finished run")
    return result
