"""Lists what nothing needs below paths.runs and paths.cache, and removes it if asked."""

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
from safetensors import safe_open

from alignlab.config.fingerprints import fingerprint
from alignlab.config.plan import Plan
from alignlab.config.schema.clean import CleanConfig
from alignlab.runs.folder import RunFolder
from alignlab.runs.garbage import Garbage, as_record, garbage_of, known_models
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome

_BASE_ID = re.compile(r"([0-9a-f]{16}|[0-9a-f]{40})(?=[:+])")
"""How a scorer's name begins where it is a base model, or an adapter on one."""


def run(plan: Plan[CleanConfig], run: RunFolder, outcome: Outcome) -> None:
    """List, and with algorithm.remove=true remove.

    Args: every job's, see `alignlab.jobs`.
    """
    found = garbage_of(plan.runs, plan.cache) + list(_of_lost_models(plan))
    outcome.extra["garbage"] = as_record(found)
    for one in found:
        say(f"{one.path}: {one.reason}, {one.num_bytes / 1e6:,.1f} MB")
    total = sum(one.num_bytes for one in found) / 1e6
    if plan.algorithm.remove:
        for one in found:
            one.remove()
        say(f"removed {len(found)} paths, {total:,.1f} MB")
    else:
        say(f"{len(found)} paths, {total:,.1f} MB" + (": algorithm.remove=true removes them" if found else ""))


def _of_lost_models(plan: Plan[CleanConfig]) -> Iterator[Garbage]:
    """Tables of scores and states by base models that no run names and that are not in the cache.

    Runs below other roots are not seen: what they would miss is computed again.
    """
    cache = plan.cache
    known = known_models(plan.runs)
    known |= {fingerprint(folder) for folder in (cache / "references").glob("[!.]*") if folder.is_dir()}
    for path in [*(cache / "scores").glob("*.parquet"), *(cache / "states").glob("*/*.safetensors")]:
        match = _BASE_ID.match(_scorer(path) or "")
        if match and not any(one.startswith(match[1]) for one in known):
            yield Garbage(path, f"scores by the model {match[1]}, which no run names")


def _scorer(path: Path) -> str | None:
    """Whose numbers a table holds; None where it cannot be read, which its next reader says."""
    try:
        if path.suffix == ".parquet":
            return str(json.loads((pq.read_schema(path).metadata or {}).get(b"alignlab", b"{}")).get("scorer", ""))
        with safe_open(path, "np") as tensors:
            return str((tensors.metadata() or {}).get("scorer", ""))
    except Exception:  # of three libraries
        return None
