"""What a single run came to, as a table for the terminal."""

import os
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path

from rich.table import Table

from alignlab.runs.progress import console
from alignlab.runs.result import RESULT, RunResult, read_result
from alignlab.runs.tables import print_table

MOST_FAILURES = 10
"""Failed runs of a sweep that are listed one by one."""


def print_summary(result: RunResult, folder: Path) -> None:
    """Print every metric with its interval, and where the run's files lie."""
    weights = ", ".join(f"{name} {weight:g}" for name, weight in (result.weights or {}).items())
    data = f" on {result.dataset}" if result.dataset else ""
    weighed = f"; weights: {weights}" if weights else ""
    run = f"{result.algorithm}{data} ({result.model})"
    console.print(f"{run}{weighed}; seed {result.seed}", markup=False, soft_wrap=True)
    table = Table()
    for name, side in (("metric", "left"), ("mean", "right"), ("95% interval", "right"), ("n", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for name, metric in result.metrics.items():
        interval = metric["ci95"]
        mean = "unknown" if metric["mean"] is None else f"{metric['mean']:.3f}"
        table.add_row(name, mean, f"{interval[0]:.3f} .. {interval[1]:.3f}" if interval else "-", str(metric["n"]))
    if result.metrics:
        print_table(table)
    for name, path in {"result": RESULT, **result.artifacts}.items():
        console.print(f"{name}: {os.path.normpath(folder / path)}", markup=False, soft_wrap=True)


def print_failures(runs: Sequence[tuple[Path, Sequence[str]]], flags: Sequence[str]) -> None:
    """Say which runs of a sweep did not end well, why, and the commands that run just those again.

    Args:
        runs: folder and overrides of every run.
        flags: what the sweep was started with beside overrides, e.g. `--config-dir`.
    """
    failed = []
    for folder, overrides in runs:
        result = read_result(folder)
        if result is None or result.status != "done":
            reason = "did not start or was killed" if result is None else result.error or result.status
            failed.append((folder, reason, shlex.join(["python", "-m", "alignlab", *flags, *overrides])))
    if not failed:
        return
    print(f"{len(failed)} of {len(runs)} runs did not end well:", file=sys.stderr)
    for folder, reason, command in failed[:MOST_FAILURES]:
        print(f"  {folder}: {reason:.200}\n    {command}", file=sys.stderr)
    if len(failed) > MOST_FAILURES:
        print(f"  and {len(failed) - MOST_FAILURES} more; the sweep's command runs just those again", file=sys.stderr)
