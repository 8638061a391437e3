"""alignlab's training against TRL's own DPOTrainer: same rows, order, initial adapter and optimiser, side by side.

    python -m benchmarks.preference_training --rows FILE.jsonl --shape ranked --requests 12 --repeat 3 --json OUT

Each run is a process of its own, the two kinds alternate, and ratios are medians over neighbours. TRL is given its
best settings: tokens ready-made, reference precomputed.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, machine_line
from benchmarks.shapes import SHAPES, lora, model_of, workload
from benchmarks.side_by_side import KINDS, Runs, alternate, greatest_difference, median_ratio, seconds_of

TIMES = ("training", "reference", "end_to_end")


def main(given: list[str] | None = None) -> None:
    """Alternates the kinds and prints the table."""
    given = sys.argv[1:] if given is None else given
    arguments = _parser().parse_args(given)
    if arguments.one:
        print(json.dumps(run_here(arguments)))
        return
    runs = alternate("benchmarks.preference_training", KINDS, repeat=arguments.repeat, arguments=given)
    summary = summarise(runs, shape=arguments.shape, requests=arguments.requests) | {"machine": machine()}
    print(table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")


def run_here(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reference pass and training of one kind, in this process."""
    import torch

    from benchmarks.trainers import Recipe, one_run

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    work = workload(
        arguments.rows,
        shape=arguments.shape,
        requests=arguments.requests,
        batch_size=arguments.batch,
        vocabulary=arguments.vocabulary,
        max_length=arguments.max_length,
    )
    model = model_of(work.tokenizer, hidden=arguments.hidden, layers=arguments.layers)
    device = "cuda" if arguments.cuda else "cpu"
    recipe = Recipe(lora(arguments.lora_rank), device, bf16=arguments.cuda, parts=not arguments.cuda)
    return one_run(arguments.one, work, model, recipe) | {"tokens": work.tokens()}


def summarise(runs: Runs, *, shape: str, requests: int) -> dict[str, Any]:
    """Ratios as medians over neighbouring pairs of runs, and the greatest relative difference of a step's loss."""
    ratios = {name: median_ratio(runs, name, slow="trl", fast="alignlab") for name in TIMES}
    neighbours = zip(runs["trl"], runs["alignlab"], strict=True)
    tokens = runs["alignlab"][0]["tokens"]
    bound = tokens["padded"] / tokens["distinct"]
    return {
        "shape": shape,
        "requests": requests,
        "ratio": ratios["training"],
        "ratio_reference": ratios["reference"],
        "ratio_end_to_end": ratios["end_to_end"],
        "ratio_cpu": median_ratio(runs, "cpu", slow="trl", fast="alignlab"),
        "loss_difference": max(greatest_difference(left["losses"], right["losses"]) for left, right in neighbours),
        "tokens": tokens,
        "bound": bound,
        "share_of_bound": ratios["training"] / bound,
        "seconds": seconds_of(runs, (*TIMES, "cpu")),
        "parts": {kind: _middle(of_kind)["parts"] for kind, of_kind in runs.items()},
        "memory": {kind: max(run["memory"] for run in of_kind) for kind, of_kind in runs.items()},
    }


def _middle(runs: list[dict[str, Any]]) -> dict[str, Any]:
    """The run whose training took the median time."""
    return sorted(runs, key=lambda run: run["training"])[len(runs) // 2]


def table(summary: dict[str, Any]) -> str:
    """The figures as Markdown."""
    tokens, seconds, memory = summary["tokens"], summary["seconds"], summary["memory"]
    lines = [
        f"{summary['shape']}, {summary['requests']} requests: tokens padded {tokens['padded']:,} / real "
        f"{tokens['real']:,} / distinct {tokens['distinct']:,} (computed {tokens['computed']:,})",
        "",
        "| | training, s | reference pass, s | end to end, s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for kind, named in seconds.items():
        cells = [", ".join(f"{value:.1f}" for value in named[name]) for name in TIMES]
        lines.append(f"| {kind} | {' | '.join(cells)} | {memory[kind]:,.0f} |")
    ratios = [summary[name] for name in ("ratio", "ratio_reference", "ratio_end_to_end")]
    lines.append("| ratio | " + " | ".join(f"**{value:.1f}**" for value in ratios) + " | |")
    lines += ["", _bound(summary), *_parts(summary), ""]
    lines.append(
        f"Greatest relative difference of a step's loss: {summary['loss_difference']:.1e}. Ratio of the training's "
        f"processor time, which a busy machine disturbs less: {summary['ratio_cpu']:.1f}."
    )
    if summary.get("machine"):
        lines += ["", machine_line(summary["machine"])]
    return "\n".join(lines)


def _bound(summary: dict[str, Any]) -> str:
    tokens = summary["tokens"]
    return (
        f"The bound by distinct tokens is {summary['bound']:.1f} (padded / distinct); training reaches "
        f"{summary['share_of_bound']:.0%} of it. alignlab computes {tokens['computed'] / tokens['distinct']:.2f} "
        "positions a distinct token: what it does not share where the mask would cost more, and the ends of its rows."
    )


def _parts(summary: dict[str, Any]) -> list[str]:
    """Where the time of a step goes, and what a position costs either kind."""
    parts = summary["parts"]
    if not all(parts.values()):
        return []
    positions = {"trl": summary["tokens"]["padded"], "alignlab": summary["tokens"]["computed"]}
    names = list(next(iter(parts.values())))
    lines = ["", f"| training, s | {' | '.join(names)} | ms a thousand positions |", "|---" * (len(names) + 2) + "|"]
    for kind, spent in parts.items():
        whole = sum(spent.values())
        cells = " | ".join(f"{spent[name]:.2f} ({spent[name] / whole:.0%})" for name in names)
        lines.append(f"| {kind} | {cells} | {1e6 * whole / positions[kind]:.0f} |")
    return lines


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="rows in PKU-SafeRLHF's columns, JSONL or Parquet")
    parser.add_argument("--shape", choices=SHAPES, default="pairs")
    parser.add_argument("--requests", type=int, default=12, help="rows of the file that are used")
    parser.add_argument("--repeat", type=int, default=3, help="runs of each kind")
    parser.add_argument("--batch", type=int, help="pairs of a step; 6, or two requests' 30, unless given")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8000, help="tokens of the BPE that is trained on the rows")
    parser.add_argument("--lora-rank", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of prompt and response")
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice unless given")
    parser.add_argument("--cuda", action="store_true", help="on a GPU, bfloat16")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
