"""Lists every run and front of a root in its index.html."""

import os

from alignlab.config.plan import Plan
from alignlab.config.schema import IndexConfig
from alignlab.errors import ConfigError
from alignlab.pages.index import write_index
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[IndexConfig], run: RunFolder, outcome: Outcome) -> None:
    """Write index.html into paths.runs.

    Args: every job's, see `alignlab.jobs`.
    """
    found = write_index(plan.runs)
    if not found.runs + found.fronts:
        raise ConfigError(f"paths.runs={plan.runs}: no run found; train some first")
    say(f"{_count(found.runs, 'run')}, {_count(found.fronts, 'front')}: {found.path}")
    outcome.artifacts["page"] = os.path.relpath(found.path, run.path)
    outcome.extra |= {"runs": found.runs, "fronts": found.fronts}


def _count(number: int, name: str) -> str:
    return f"{number} {name}" if number == 1 else f"{number} {name}s"
