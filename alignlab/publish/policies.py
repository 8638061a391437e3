"""The policies of a finished front with what is published of each."""

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.config.hydra.command import commands_of
from alignlab.errors import masked, without_secrets
from alignlab.front.collect import RESULT, Collection, FrontPoint
from alignlab.front.page import HARMLESS_DATA
from alignlab.front.series import weight_label
from alignlab.pages import visible
from alignlab.runs.policy import policy_adapter, policy_run
from alignlab.runs.result import known_config


@dataclass(frozen=True)
class Policy:
    """One point of a front."""

    name: str
    """`modpo w=0.1`, with the seed where several were run; unique on its front."""
    slug: str
    """The same as a file's name."""
    point: FrontPoint
    command: str | None
    """Makes it again; None where no command of this version does."""
    adapter: Path | None


def policies_of(collection: Collection) -> list[Policy]:
    """Every point of a front, in its order; no text of these holds a key."""
    results = [json.loads((point.folder / RESULT).read_text(encoding="utf-8")) for point in collection.points]
    makers = [policy_run(point.folder, result) for point, result in zip(collection.points, results, strict=True)]
    records = [without_secrets(known_config(maker)) for maker in makers]
    commands = [None if command is None else masked(command) for command in commands_of(records)]
    names = _names(collection.points)
    slugs = _unlike([re.sub(r"[^\w=.,-]+", "_", name)[:100] for name in names], "_")
    adapters = [policy_adapter(one.folder, result) for one, result in zip(collection.points, results, strict=True)]
    parts = zip(names, slugs, collection.points, commands, adapters, strict=True)
    return [Policy(*part) for part in parts]


def are_harmless(collection: Collection) -> bool:
    """Whether nobody needs to be spared a text of these policies; data that is not known is not."""
    datasets = [known_config(point.folder).get("dataset") for point in collection.points]
    return all(isinstance(one, Mapping) and one.get("kind") in HARMLESS_DATA for one in datasets)


def _names(points: Sequence[FrontPoint]) -> list[str]:
    """Series, w and, where it is needed to tell two apart, seed and a number."""
    names = [f"{point.series} w={weight_label(point)}" if point.weights else point.series for point in points]
    if len(set(names)) < len(names):
        names = [f"{name} seed={point.seed}" for name, point in zip(names, points, strict=True)]
    return _unlike([masked(visible(name)) for name in names], " #")


def _unlike(names: list[str], mark: str) -> list[str]:
    """The names, numbered where two are the same."""
    return names if len(set(names)) == len(names) else [f"{name}{mark}{number}" for number, name in enumerate(names, 1)]
