"""Whole ranked sets against shuffled pairs: the same pairs, as often, in batches of few prompts and of many.

    python -m benchmarks.convergence --synthesis RUN_FOLDER      # a finished algorithm=synthesis; a table on stdout

A batch of whole sets costs less, since the pairs of a set share their tokens; it also holds fewer prompts, so that its
gradient says less. Both sides are real `dpo` runs on equal pairs: `dataset=ranked` on ranked.jsonl, whose sets stay
whole, and `dataset=pairs` on pairs.jsonl, whose rows are shuffled. Held-out prompts are the same by their hash.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.cli import main as alignlab

SIDES = {"whole sets": ("ranked", "ranked.jsonl"), "shuffled pairs": ("pairs", "pairs.jsonl")}
BATCH = 32
"""Pairs of an optimizer step."""
PAIRS_A_PROMPT = 15
"""Of the six responses to a harmful request."""


def main() -> int:
    """Train both sides for each number of steps and print what they reached; an exit code."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--synthesis", type=Path, required=True, help="folder of a finished synthesis run")
    parser.add_argument("--steps", default="10,30,90", help="optimizer steps, comma-separated")
    parser.add_argument("--seeds", default="0,1,2", help="comma-separated")
    parser.add_argument("--runs", type=Path, default=Path("runs/convergence"))
    parser.add_argument("overrides", nargs="*", help="further alignlab overrides")
    arguments = parser.parse_args()
    print("| | steps | pairs | prompts a step | training, s | held-out accuracy | held-out margin |")
    print("|---|---|---|---|---|---|---|")
    for steps in map(int, arguments.steps.split(",")):
        for side in SIDES:
            runs = arguments.runs / f"{side.partition(' ')[0]}-{steps}"
            data = data_of(side, arguments.synthesis, arguments.runs)
            sweep = ["-m", "algorithm=dpo", f"seed={arguments.seeds}", f"trainer.max_steps={steps}"]
            batch = f"trainer.per_device_train_batch_size={BATCH}"
            code = alignlab([*sweep, *data, batch, f"paths.runs={runs}", *arguments.overrides])
            if code:
                return code
            print(row_of(side, steps, list(results_in(runs))), flush=True)
    return 0


def data_of(side: str, synthesis: Path, runs: Path) -> list[str]:
    """Overrides that read one side's rows: those of a request with six responses, whose pairs both files hold."""
    kind, name = SIDES[side]
    folder = runs / "rows" / kind
    folder.mkdir(parents=True, exist_ok=True)
    rows = [json.loads(line) for line in (synthesis / name).read_text(encoding="utf-8").splitlines()]
    harmful = [row for row in rows if row["kind"] == "harmful"]
    keep = ("prompt", "responses") if kind == "ranked" else ("prompt", "chosen", "rejected")
    lines = [json.dumps({key: row[key] for key in keep}) for row in harmful]
    (folder / "rows.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")
    return [f"dataset={kind}", f"dataset.path={folder / 'rows.jsonl'}", "dataset.on_bad_row=drop"]


def results_in(runs: Path) -> Iterator[dict[str, Any]]:
    """The finished dpo runs below a folder."""
    for file in sorted(runs.glob("dpo/**/result.json")):
        yield json.loads(file.read_text(encoding="utf-8"))


def row_of(side: str, steps: int, results: list[dict[str, Any]]) -> str:
    """A table row: means over the seeds, least to greatest."""

    def spread(values: list[float], digits: int) -> str:
        low, high = min(values), max(values)
        return f"{sum(values) / len(values):.{digits}f} ({low:.{digits}f} .. {high:.{digits}f})"

    seconds = [float(result["seconds"]["training"]) for result in results]
    metrics = [result["metrics"] for result in results]
    accuracy = [float(one["preferred_accuracy"]["mean"]) for one in metrics]
    margin = [float(one["preferred_margin"]["mean"]) for one in metrics]
    prompts = results[0]["rows"]["train"] / PAIRS_A_PROMPT
    shuffled = prompts * (1 - (1 - 1 / prompts) ** BATCH)
    mixed = BATCH / PAIRS_A_PROMPT if side == "whole sets" else shuffled
    cells = [
        side,
        f"{steps}",
        f"{steps * BATCH}",
        f"{mixed:.1f}",
        spread(seconds, 1),
        spread(accuracy, 3),
        spread(margin, 3),
    ]
    return "| " + " | ".join(cells) + " |"


if __name__ == "__main__":
    raise SystemExit(main())
