"""What the policies of a front said, by prompt, and how their training went: what a page unpacks when asked."""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.front.prompts import GENERATIONS, SCORES
from alignlab.pages import prompt_text
from alignlab.stats import paired_difference

MOST_CURVE_POINTS = 300
"""Of one learning curve; a longer one is thinned evenly."""
CATEGORY_KEYS = ("category", "categories")


@dataclass
class Said:
    """Samples and scores of one policy, a list entry a sample."""

    prompts: list[str] = field(default_factory=list)
    """The key of each sample's prompt."""
    responses: list[str] = field(default_factory=list)
    scores: dict[str, list[float | None]] = field(default_factory=dict)
    texts: dict[str, str] = field(default_factory=dict)
    """Key of a prompt -> its text."""
    categories: dict[str, str] = field(default_factory=dict)

    def means(self, metric: str) -> dict[str, float]:
        """Mean score of each prompt, of those with a known score."""
        held: dict[str, list[float]] = {}
        for prompt, value in zip(self.prompts, self.scores.get(metric, ()), strict=False):
            if value is not None:
                held.setdefault(prompt, []).append(value)
        return {prompt: math.fsum(values) / len(values) for prompt, values in held.items()}

    def is_share(self, metric: str) -> bool:
        """Whether every known score is 0 or 1."""
        return all(value in (None, 0, 1) for value in self.scores.get(metric, ()))


def read_said(folder: Path) -> Said:
    """What a run's policy said; empty where the run has not sampled. A score that is not a number is unknown."""
    said = Said()
    scores = {row["id"]: row for row in _rows(folder / SCORES) if "id" in row}
    rows = [row for row in _rows(folder / GENERATIONS) if "response" in row and "prompt" in row]
    known = [scores.get(row.get("id"), {}) for row in rows]
    names = dict.fromkeys(name for row in known for name, value in row.items() if _is_number(value))
    for row, own in zip(rows, known, strict=True):
        key = json.dumps(row["prompt"], sort_keys=True)
        said.texts.setdefault(key, prompt_text(row["prompt"]))
        category = next((row[name] for name in CATEGORY_KEYS if row.get(name)), None)
        if category is not None:
            said.categories[key] = ", ".join(map(str, category)) if isinstance(category, list) else str(category)
        said.prompts.append(key)
        said.responses.append(str(row["response"]))
        for name in names:
            value = own.get(name)
            said.scores.setdefault(name, []).append(_number(value))
    return said


def differences(said: Sequence[Said], metrics: Sequence[str]) -> list[dict[str, Any]]:
    """Paired differences between any two policies on the prompts that both have, metric by metric.

    Each is `{"a", "b", "metric", "mean", "low", "high", "groups", "p"}`: b minus a, with its 95 % interval over
    prompts, by index of the policies.
    """
    found = []
    for metric in metrics:
        by_prompt = [one.means(metric) for one in said]
        for b, after in enumerate(by_prompt):
            for a, before in enumerate(by_prompt[:b]):
                if not before.keys() & after.keys():
                    continue
                shares = said[a].is_share(metric) and said[b].is_share(metric)
                one = paired_difference(*((list(held.values()), list(held)) for held in (before, after)), shares=shares)
                interval = one.interval
                numbers = {"mean": interval.mean, "low": interval.low, "high": interval.high, "p": one.p}
                found.append({"a": a, "b": b, "metric": metric, **numbers, "groups": interval.groups})
    return found


def learning_curves(folder: Path) -> dict[str, list[float | None]]:
    """Columns of metrics.jsonl, `step` first; the summary at a training's end is left out."""
    rows = [
        row for row in _rows(folder / "metrics.jsonl") if _is_number(row.get("step")) and "train_runtime" not in row
    ]
    every = max(1, math.ceil(len(rows) / MOST_CURVE_POINTS))
    rows = rows[::-1][::every][::-1]
    names = dict.fromkeys(["step", *(name for row in rows for name, value in row.items() if _is_number(value))])
    return {name: [_number(row.get(name)) for row in rows] for name in names} if rows else {}


def _number(value: object) -> float | None:
    """A finite number, None for whatever else."""
    known = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if known else None  # type: ignore[arg-type]


def _is_number(value: object) -> bool:
    return _number(value) is not None


def _rows(file: Path) -> list[dict[str, Any]]:
    """The objects of a JSON Lines file; a torn line, as a running job leaves one, is left out."""
    found = []
    try:
        lines = file.read_text(encoding="utf-8", errors="replace").split("\n")
    except OSError:
        return []
    for line in lines:
        try:
            row = json.loads(line)
        except (ValueError, RecursionError):
            continue
        if isinstance(row, dict):
            found.append(row)
    return found
