"""What a single run came to, as a table for the terminal."""

from pathlib import Path

from rich.table import Table

from alignlab.runs.progress import console
from alignlab.runs.result import RESULT, RunResult


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
        console.print(table)
    for name, path in {"result": RESULT, **result.artifacts}.items():
        console.print(f"{name}: {folder / path}", markup=False, soft_wrap=True)
