"""What a single run came to, as a table for the terminal."""

from pathlib import Path
from typing import Any

from rich.table import Table

from alignlab.config.names import REQUEST_JOBS
from alignlab.runs.progress import console


def print_summary(result: dict[str, Any], folder: Path) -> None:
    """Prints every metric with its interval, and where the run's files lie."""
    weights = ", ".join(f"{name} {weight:g}" for name, weight in result["weights"].items())
    weighed = "" if result["algorithm"] in REQUEST_JOBS else f"; weights: {weights}"
    run = f"{result['algorithm']} on {result['dataset']} ({result['model']})"
    console.print(f"{run}{weighed}; seed {result['seed']}", markup=False, soft_wrap=True)
    table = Table()
    for name, side in (("metric", "left"), ("mean", "right"), ("95% interval", "right"), ("n", "right")):
        table.add_column(name, justify=side)  # type: ignore[arg-type]
    for name, metric in result["metrics"].items():
        interval = metric["ci95"]
        mean = "unknown" if metric["mean"] is None else f"{metric['mean']:.3f}"
        table.add_row(name, mean, f"{interval[0]:.3f} .. {interval[1]:.3f}" if interval else "-", str(metric["n"]))
    if result["metrics"]:
        console.print(table)
    for name, path in {"result": "result.json", **result["artifacts"]}.items():
        console.print(f"{name}: {folder / path}", markup=False, soft_wrap=True)
