"""alignlab's training against TRL's own DPOTrainer: same rows, order, initial adapter and optimiser, side by side.

    python -m benchmarks.preference_training --rows FILE.jsonl --shape ranked --requests 12 --repeat 3 --json OUT

Each run is a process of its own, the two kinds alternate, and figures are ratios of neighbours. TRL is given its best
settings: tokens ready-made, reference precomputed.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any

KINDS = ("trl", "alignlab")


def main() -> None:
    """Alternates the kinds and prints the table."""
    arguments = _parse()
    if arguments.one:
        print(json.dumps(one_run(arguments)))
        return
    runs: dict[str, list[dict[str, Any]]] = {kind: [] for kind in KINDS}
    for repeat in range(arguments.repeat):
        for kind in KINDS if repeat % 2 == 0 else KINDS[::-1]:
            runs[kind].append(_in_a_process(kind))
            print(f"run {repeat + 1}, {kind}: training {runs[kind][-1]['training']:.1f} s", file=sys.stderr)
    summary = summarise(runs, arguments)
    print(table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")


def one_run(arguments: argparse.Namespace) -> dict[str, Any]:
    """Reference pass and training of one kind, in this process: seconds, losses, tokens, peak memory."""
    import torch

    from benchmarks.shapes import model_of, workload

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    work = workload(arguments.rows, shape=arguments.shape, requests=arguments.requests, batch_size=arguments.batch)
    model = model_of(work.tokenizer, hidden=arguments.hidden, layers=arguments.layers)
    with tempfile.TemporaryDirectory() as folder:
        measured = (_alignlab if arguments.one == "alignlab" else _trl)(work, model, folder, arguments)
    measured["memory"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**10
    return measured


def _alignlab(work: Any, model: Any, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from alignlab.models.adapters import lora_config
    from alignlab.preference.layout import forest_layout, padded_layout
    from alignlab.preference.logps import response_logps
    from alignlab.preference.trainer import TiltedDPOTrainer
    from benchmarks.shapes import LORA

    start = time.perf_counter()
    logps = response_logps(model, work.responses(), batch_size=2 * work.batch_size, label="reference")
    reference = time.perf_counter() - start
    chosen, rejected = logps.chunk(2)
    rows = work.table().add_column("ref_chosen_logps", chosen.tolist())
    rows = rows.add_column("ref_rejected_logps", rejected.tolist())
    engine = TiltedDPOTrainer(
        model=model,
        args=_settings(folder, work, arguments),
        train_dataset=rows,
        processing_class=work.tokenizer,
        peft_config=lora_config(LORA),
    )
    ready = time.perf_counter()
    engine.train()
    end = time.perf_counter()
    batches = [work.pairs[place : place + work.batch_size] for place in range(0, len(work.pairs), work.batch_size)]
    layouts = [([left for left, _ in batch] + [right for _, right in batch]) for batch in batches]
    tokens = {
        "padded": sum(padded_layout(rows).num_slots for rows in layouts),
        "real": sum(forest_layout(rows).num_real for rows in layouts),
        "distinct": sum(forest_layout(rows, mask_price=0).num_distinct for rows in layouts),
        "computed": sum(forest_layout(rows).num_slots for rows in layouts),
    }
    return _measured(engine, reference, end - ready, end - start) | {"tokens": tokens}


def _trl(work: Any, model: Any, folder: str, arguments: argparse.Namespace) -> dict[str, Any]:
    from trl import DPOTrainer

    from alignlab.models.adapters import lora_config
    from benchmarks.shapes import LORA

    spent: list[float] = []

    class Ready(DPOTrainer):  # type: ignore[misc]
        """TRL's trainer on ready-made tokens, with its reference pass timed."""

        def _prepare_dataset(self, dataset: Any, *_: Any) -> Any:
            return dataset

        def _precompute_ref_logps(self, *given: Any, **named: Any) -> Any:
            begin = time.perf_counter()
            rows = super()._precompute_ref_logps(*given, **named)
            spent.append(time.perf_counter() - begin)
            return rows

    rows = work.table()
    rows._fingerprint = uuid.uuid4().hex  # TRL keeps its reference on disk; every run here computes its own
    start = time.perf_counter()
    engine = Ready(
        model=model,
        args=_settings(folder, work, arguments),
        train_dataset=rows,
        processing_class=work.tokenizer,
        peft_config=lora_config(LORA),
    )
    ready = time.perf_counter()
    engine.train()
    end = time.perf_counter()
    return _measured(engine, sum(spent), end - ready, end - start)


def _settings(folder: str, work: Any, arguments: argparse.Namespace) -> Any:
    from trl import DPOConfig

    return DPOConfig(
        output_dir=folder,
        per_device_train_batch_size=work.batch_size,
        num_train_epochs=1,
        learning_rate=5e-4,
        max_length=None,
        precompute_ref_log_probs=True,
        gradient_checkpointing=False,
        logging_steps=1,
        save_strategy="no",
        train_sampling_strategy="sequential",  # a request's pairs lie together, for both kinds
        report_to="none",
        disable_tqdm=True,
        use_cpu=not arguments.cuda,
        bf16=arguments.cuda,
        seed=0,
        data_seed=0,
    )


def _measured(engine: Any, reference: float, training: float, whole: float) -> dict[str, Any]:
    losses = [entry["loss"] for entry in engine.state.log_history if "loss" in entry]
    return {"reference": reference, "training": training, "end_to_end": whole, "losses": losses}


def _in_a_process(kind: str) -> dict[str, Any]:
    command = [sys.executable, "-m", "benchmarks.preference_training", *sys.argv[1:], "--one", kind]
    ended = subprocess.run(command, capture_output=True, text=True, check=False)
    if ended.returncode:
        raise SystemExit(f"{kind} failed:\n{ended.stderr[-2000:]}")
    measured: dict[str, Any] = json.loads(ended.stdout.strip().splitlines()[-1])
    return measured


def summarise(runs: dict[str, list[dict[str, Any]]], arguments: argparse.Namespace) -> dict[str, Any]:
    """Ratios as medians over neighbouring pairs of runs, and the greatest relative difference of a step's loss."""

    def ratio(name: str) -> float:
        return statistics.median(
            left[name] / right[name] for left, right in zip(runs["trl"], runs["alignlab"], strict=True)
        )

    steps = zip(runs["trl"][0]["losses"], runs["alignlab"][0]["losses"], strict=True)
    return {
        "shape": arguments.shape,
        "requests": arguments.requests,
        "ratio": ratio("training"),
        "ratio_reference": ratio("reference"),
        "ratio_end_to_end": ratio("end_to_end"),
        "loss_difference": max(abs(left - right) / max(abs(left), 1e-12) for left, right in steps),
        "tokens": runs["alignlab"][0]["tokens"],
        "seconds": {
            kind: {name: [run[name] for run in runs[kind]] for name in ("training", "reference", "end_to_end")}
            for kind in KINDS
        },
        "memory": {kind: max(run["memory"] for run in runs[kind]) for kind in KINDS},
    }


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
    for kind in KINDS:
        cells = [", ".join(f"{value:.1f}" for value in seconds[kind][name]) for name in seconds[kind]]
        lines.append(f"| {kind} | {cells[0]} | {cells[1]} | {cells[2]} | {memory[kind]:.0f} |")
    ratios = [summary[name] for name in ("ratio", "ratio_reference", "ratio_end_to_end")]
    lines.append("| ratio | " + " | ".join(f"**{value:.1f}**" for value in ratios) + " | |")
    bound = tokens["padded"] / tokens["distinct"]
    lines += [
        "",
        f"Bound by distinct tokens: {bound:.1f}. Greatest relative difference of a step's loss: "
        f"{summary['loss_difference']:.1e}.",
    ]
    return "\n".join(lines)


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="rows in PKU-SafeRLHF's columns")
    parser.add_argument("--shape", choices=("pairs", "ranked"), default="pairs")
    parser.add_argument("--requests", type=int, default=12, help="rows of the file that are used")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--batch", type=int, help="pairs of a step; 6, or two requests' 30")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice unless given")
    parser.add_argument("--cuda", action="store_true", help="on a GPU, bfloat16")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    return parser.parse_args()


if __name__ == "__main__":
    main()
