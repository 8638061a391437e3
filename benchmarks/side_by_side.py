"""Runs of several kinds, alternating, each in a process of its own; figures are ratios of neighbours."""

import json
import statistics
import subprocess
import sys
from typing import Any

KINDS = ("trl", "alignlab")
Runs = dict[str, list[dict[str, Any]]]


def alternate(module: str, kinds: tuple[str, str], *, repeat: int, arguments: list[str]) -> Runs:
    """What `python -m module ... --one KIND` printed last, for each kind and repeat; the order turns with each repeat.

    Raises:
        SystemExit: if a run fails; says how it ended.
    """
    runs: Runs = {kind: [] for kind in kinds}
    for number in range(repeat):
        for kind in kinds if number % 2 == 0 else kinds[::-1]:
            command = [sys.executable, "-m", module, *arguments, "--one", kind]
            ended = subprocess.run(command, capture_output=True, text=True, check=False)
            if ended.returncode:
                raise SystemExit(f"{kind} failed:\n{ended.stderr[-2000:]}")
            measured = json.loads(ended.stdout.strip().splitlines()[-1])
            runs[kind].append(measured)
            print(f"run {number + 1}, {kind}: training {measured['training']:.1f} s", file=sys.stderr, flush=True)
    return runs


def median_ratio(runs: Runs, name: str, *, slow: str, fast: str) -> float:
    """Median over neighbouring runs of how many times longer the slow kind takes."""
    return statistics.median(left[name] / right[name] for left, right in zip(runs[slow], runs[fast], strict=True))


def greatest_difference(left: list[float], right: list[float]) -> float:
    """Greatest relative difference of two lists of losses, step by step."""
    steps = zip(left, right, strict=True)
    return max(abs(one - other) / max(abs(one), 1e-12) for one, other in steps)


def seconds_of(runs: Runs, names: tuple[str, ...]) -> dict[str, dict[str, list[float]]]:
    """Kind -> name -> seconds of every run."""
    return {kind: {name: [run[name] for run in of_kind] for name in names} for kind, of_kind in runs.items()}
