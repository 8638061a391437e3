"""alignlab against TRL on one GPU: a 7B-shaped Llama of random weights, LoRA, bfloat16, rows of up to 512 tokens.

    python -m benchmarks.gpu --shape pairs --json OUT
    python -m benchmarks.gpu --shape ranked --batch 15 --checkpointing --json OUT
    python -m benchmarks.gpu --device cpu --hidden 64 --layers 2 --heads 2 --intermediate 128 --vocabulary 300

Nothing is downloaded: weights are random, and rows are random tokens unless --rows names a file. Tokens a second count
every token of every row once for each side, padding never; MFU is explained in `benchmarks.flops`. The first steps,
which compile and fill caches, are left out of both.
"""

import argparse
import json
import sys
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, machine_line
from benchmarks.shapes import PAIRS_A_BATCH, SHAPES, lora, model_of, synthetic_workload, workload
from benchmarks.side_by_side import KINDS, Runs, alternate, greatest_difference, median_ratio, seconds_of

TIMES = ("training", "reference", "end_to_end", "steady")


def main(given: list[str] | None = None) -> None:
    """Alternates the kinds and prints the table."""
    given = sys.argv[1:] if given is None else given
    arguments = _parser().parse_args(given)
    if arguments.one:
        print(json.dumps(run_here(arguments)))
        return
    work = work_of(arguments)
    num_steps = len(work.batches())
    if num_steps <= arguments.warmup:
        raise SystemExit(f"--requests={arguments.requests}: {num_steps} steps, of which {arguments.warmup} warm up")
    runs = alternate("benchmarks.gpu", KINDS, repeat=arguments.repeat, arguments=given)
    summary = summarise(runs, arguments) | {"machine": machine()}
    print(table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")


def work_of(arguments: argparse.Namespace) -> Any:
    """The rows: of a file, or random."""
    sizes = {
        "shape": arguments.shape,
        "requests": arguments.requests,
        "batch_size": arguments.batch,
        "vocabulary": arguments.vocabulary,
        "max_length": arguments.max_length,
    }
    return workload(arguments.rows, **sizes) if arguments.rows else synthetic_workload(**sizes)


def run_here(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reference pass and training of one kind, in this process."""
    import torch

    from benchmarks.flops import training_flops
    from benchmarks.trainers import Recipe, one_run

    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise SystemExit("--device=cuda: no GPU here; --device cpu with small sizes tries the command out")
    work = work_of(arguments)
    bf16 = arguments.device == "cuda"
    torch.set_default_dtype(torch.bfloat16 if bf16 else torch.float32)
    with torch.device(arguments.device):  # 7B weights are drawn on the GPU, in the type that they are kept in
        model = model_of(
            work.tokenizer,
            hidden=arguments.hidden,
            layers=arguments.layers,
            heads=arguments.heads,
            intermediate=arguments.intermediate,
        )
    torch.set_default_dtype(torch.float32)
    if arguments.one == "trl" and arguments.trl_attention:
        model.set_attn_implementation(arguments.trl_attention)
    recipe = Recipe(
        lora(arguments.lora_rank),
        arguments.device,
        bf16=bf16,
        learning_rate=1e-4,
        gradient_checkpointing=arguments.checkpointing,
        parts=arguments.parts or not bf16,
    )
    measured = one_run(arguments.one, work, model, recipe)
    steady = work.batches()[arguments.warmup :]
    shared = arguments.one == "alignlab"
    flops = sum(training_flops(rows, model.config, lora_rank=arguments.lora_rank, shared=shared) for rows in steady)
    tokens = sum(len(row.prompt_ids) + len(row.response_ids) for rows in steady for row in rows)
    seconds = sum(measured["steps"][arguments.warmup :])
    return measured | {"tokens": work.tokens(), "steady": seconds, "steady_tokens": tokens, "steady_flops": flops}


def summarise(runs: Runs, arguments: argparse.Namespace) -> dict[str, Any]:
    """Tokens a second, MFU, memory and ratios; MFU is null where the device's peak is not known."""
    import torch

    from benchmarks.flops import peak_of

    name = torch.cuda.get_device_name() if arguments.device == "cuda" else None
    peak = arguments.peak * 1e12 if arguments.peak else peak_of(name)
    fastest = {kind: min(of_kind, key=lambda run: run["steady"]) for kind, of_kind in runs.items()}
    neighbours = zip(runs["trl"], runs["alignlab"], strict=True)
    return {
        "shape": arguments.shape,
        "requests": arguments.requests,
        "pairs_a_step": arguments.batch or PAIRS_A_BATCH[arguments.shape],
        "ratio": median_ratio(runs, "steady", slow="trl", fast="alignlab"),
        "ratio_cpu": median_ratio(runs, "cpu", slow="trl", fast="alignlab"),
        "ratio_reference": median_ratio(runs, "reference", slow="trl", fast="alignlab"),
        "loss_difference": max(greatest_difference(left["losses"], right["losses"]) for left, right in neighbours),
        "tokens": runs["alignlab"][0]["tokens"],
        "tokens_a_second": {kind: run["steady_tokens"] / run["steady"] for kind, run in fastest.items()},
        "mfu": {kind: peak and run["steady_flops"] / run["steady"] / peak for kind, run in fastest.items()},
        "seconds": seconds_of(runs, TIMES),
        "parts": {kind: run["parts"] for kind, run in fastest.items()},
        "memory": {kind: max(run["memory"] for run in of_kind) for kind, of_kind in runs.items()},
        "sizes": {name: str(value) for name, value in vars(arguments).items() if name not in ("json", "one")},
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as Markdown."""
    tokens = summary["tokens"]
    lines = [
        f"{summary['shape']}, {summary['requests']} requests, {summary['pairs_a_step']} pairs a step: tokens padded "
        f"{tokens['padded']:,} / real {tokens['real']:,} / distinct {tokens['distinct']:,}",
        "",
        "| | non-padding tokens/s | MFU | reference pass, s | peak memory, MiB |",
        "|---|---|---|---|---|",
    ]
    for kind in KINDS:
        mfu = summary["mfu"][kind]
        reference = ", ".join(f"{value:.1f}" for value in summary["seconds"][kind]["reference"])
        share = "peak unknown" if mfu is None else f"{mfu:.1%}"
        rate, memory = summary["tokens_a_second"][kind], summary["memory"][kind]
        lines.append(f"| {kind} | {rate:,.0f} | {share} | {reference} | {memory:,.0f} |")
    lines.append(f"| ratio | **{summary['ratio']:.1f}** | | **{summary['ratio_reference']:.1f}** | |")
    lines += ["", f"Greatest relative difference of a step's loss: {summary['loss_difference']:.1e}.", ""]
    return "\n".join([*lines, machine_line(summary["machine"])])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--shape", choices=SHAPES, default="pairs")
    parser.add_argument("--requests", type=int, default=60, help="pairs, or ranked sets")
    parser.add_argument("--batch", type=int, help="pairs of a step; 6, or two requests' 30, unless given")
    parser.add_argument("--rows", type=Path, help="rows in PKU-SafeRLHF's columns; random tokens unless given")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each kind")
    parser.add_argument("--warmup", type=int, default=2, help="steps that do not count")
    parser.add_argument("--hidden", type=int, default=4096)
    parser.add_argument("--layers", type=int, default=32)
    parser.add_argument("--heads", type=int, default=32)
    parser.add_argument("--intermediate", type=int, default=11008)
    parser.add_argument("--vocabulary", type=int, default=32000)
    parser.add_argument("--lora-rank", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of prompt and response")
    parser.add_argument("--checkpointing", action="store_true", help="recompute activations in the backward pass")
    parser.add_argument("--trl-attention", help="attention for TRL, e.g. flash_attention_2; sdpa unless given")
    parser.add_argument("--peak", type=float, help="the device's dense bf16 TFLOP/s; from its name unless given")
    parser.add_argument("--parts", action="store_true", help="time the parts of a step, waiting for the GPU at each")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
