"""Whose policy a run measured: its own, or the one of the adapter that it evaluated; and the run that made it."""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from alignlab.runs.result import RESULT

MOST_LEVELS = 3
"""Between an adapter and the folder of its run: `adapter`, or `points/w=0.3/adapter`."""


def policy_adapter(folder: Path, record: Mapping[str, Any]) -> Path | None:
    """The adapter of a run's policy: the one that it evaluated, or its own; None where it has none.

    Args:
        folder: the run's.
        record: its result.json.
    """
    for part in (record.get("policy"), record.get("artifacts")):
        if isinstance(part, dict) and isinstance(part.get("adapter"), str):
            return Path(os.path.normpath(folder / part["adapter"]))
    return None


def maker_of(adapter: Path, file: str) -> Path | None:
    """The nearest folder above an adapter that holds a file, such as its run's result.json; None where none does."""
    return next((one for one in adapter.parents[:MOST_LEVELS] if (one / file).is_file()), None)


def policy_run(folder: Path, record: Mapping[str, Any]) -> Path:
    """The run that made a run's policy: of an evaluated adapter the one that trained it, else the run itself.

    Args:
        folder: the run's.
        record: its result.json.
    """
    adapter = policy_adapter(folder, record)
    home = None if adapter is None else maker_of(adapter, RESULT)
    return folder if home is None or home == Path(os.path.normpath(folder)) else home
