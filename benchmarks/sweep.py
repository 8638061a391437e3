"""A sweep over w as alignlab runs it and as the MODPO reference does: same rows, batches, initial adapters, losses.

    python -m benchmarks.sweep --rows FILE.jsonl --shape pairs|ranked --requests 48 --json OUT

alignlab's side is the real thing: five modpo runs from their configs, each with its folder, on one resident base and
one cache, which is empty at the start; each measures the policy on the held-out tenth of the prompts at its end. The
other side is `benchmarks.original`: reference, margin and margin reference in every step, padded, full logits, the same
held-out pairs after every quarter of the steps, the model loaded anew for every w; its attention is that of its pinned
transformers, unless `--attention sdpa` gives it today's. Both get the margin adapter ready-made. Each runs in a process
of its own.
"""

import argparse
import dataclasses
import json
import math
import shutil
import sys
import tempfile
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from benchmarks.machine import machine, machine_line
from benchmarks.shapes import (
    PAIRS_A_BATCH,
    SHAPES,
    TEMPLATE,
    lora,
    model_of,
    pair_row,
    ranked_row,
    records_of,
    usable,
)
from benchmarks.side_by_side import Runs, alternate, greatest_difference, median_ratio, seconds_of

KINDS = ("alignlab", "original")
REQUESTS = {"pairs": 48, "ranked": 4}
WEIGHTS = "0.1,0.3,0.5,0.7,0.9"
RECORDED = "recorded.pt"
"""What alignlab's run leaves for the original's: batches and initial adapters, w by w."""


def main(given: list[str] | None = None) -> None:
    """Makes model, rows and margin adapter, runs both kinds, prints the table."""
    given = sys.argv[1:] if given is None else given
    arguments = _parser().parse_args(given)
    if arguments.one:
        print(json.dumps(run_here(arguments)))
        return
    with tempfile.TemporaryDirectory() as folder:
        prepare(arguments, Path(folder))
        passed = [*given, "--folder", folder]
        runs = alternate("benchmarks.sweep", KINDS, repeat=arguments.repeat, arguments=passed)
    summary = summarise(runs) | {"machine": machine()}
    print(table(summary))
    if arguments.json:
        arguments.json.write_text(json.dumps(summary, indent=2) + "\n")


def prepare(arguments: argparse.Namespace, folder: Path) -> None:
    """The base model, the rows, and a run of the margin's reward_model, which both kinds take."""
    from alignlab.data.texts import normalised
    from alignlab.models.prompts import PromptEncoder
    from alignlab.models.scratch import bpe_tokenizer

    records = records_of(arguments.rows)
    texts = [text for row in records for text in (row["prompt"], row["response_0"], row["response_1"])]
    tokenizer = bpe_tokenizer(texts, arguments.vocabulary)
    encoder = PromptEncoder(tokenizer, TEMPLATE)
    fitting = {
        normalised(row["prompt"]): row
        for row in usable(records, arguments.shape)
        if len(encoder.prompt_ids(row["prompt"])) < arguments.max_length
    }  # one row a prompt, so that none lies on both sides of the split
    requests = arguments.requests or REQUESTS[arguments.shape]
    needed = requests + math.ceil(requests / 9)
    if len(fitting) < needed:
        raise SystemExit(f"--requests={requests}: needs {needed} prompts, {arguments.rows} has {len(fitting)}")
    make = ranked_row if arguments.shape == "ranked" else pair_row
    lines = [f"{json.dumps(make(row))}\n" for row in list(fitting.values())[:needed]]
    (folder / "rows").mkdir()
    (folder / "rows" / "train.jsonl").write_text("".join(lines[:requests]))
    (folder / "rows" / "test.jsonl").write_text("".join(lines[requests:]))
    model_of(tokenizer, hidden=arguments.hidden, layers=arguments.layers).save_pretrained(folder / "model")
    tokenizer.save_pretrained(folder / "model")
    (margin,) = configs(arguments, folder, "algorithm=reward_model", runs="prepared", cache="prepared_cache")
    _run(margin)


def configs(arguments: argparse.Namespace, folder: Path, *overrides: str, runs: str, cache: str) -> list[Any]:
    """The runs of a command line, as Hydra composes them."""
    from alignlab.config.hydra.compose import composing, read_command, register, run_config

    register()
    batch = arguments.batch or PAIRS_A_BATCH[arguments.shape]
    settings = [
        *(["dataset=pku_saferlhf"] if arguments.shape == "pairs" else ["dataset=ranked", "dataset.use=[helpful,safe]"]),
        "model=hf",
        f"model.path={folder / 'model'}",
        f"model.prompt_template='{TEMPLATE}'",
        "model.learning_rate=5e-4",
        f"dataset.path={folder / 'rows'}",
        f"peft.r={arguments.lora_rank}",
        f"peft.alpha={arguments.lora_rank}",
        f"peft.target_modules=[{','.join(lora().target_modules)}]",
        f"trainer.num_train_epochs={arguments.epochs}",
        f"trainer.per_device_train_batch_size={batch}",
        f"trainer.per_device_eval_batch_size={2 * batch}",
        f"trainer.max_length={arguments.max_length}",
        "trainer.save_steps=1000000",  # the other side saves nothing
        "tracker=local",
        f"paths.runs={folder / runs}",
        f"paths.cache={folder / cache}",
    ]
    with composing():
        command = read_command("config", [*settings, *overrides], multirun=True)
        return [run_config(job) for job in command.jobs()]


def one_objective(arguments: argparse.Namespace) -> str:
    """The original trains on one objective's pairs at every w, so both sides do."""
    return f"algorithm.objective={'better' if arguments.shape == 'pairs' else 'helpful'}"


def run_here(arguments: argparse.Namespace) -> dict[str, Any]:
    """One kind's whole sweep, in this process."""
    import torch

    if arguments.threads:
        torch.set_num_threads(arguments.threads)
    return (_alignlab if arguments.one == "alignlab" else _original)(arguments, arguments.folder)


def _run(config: Any) -> tuple[Path, dict[str, Any]]:
    """Folder and result of one run, its notices on stderr."""
    from alignlab.config.plan import plan_of
    from alignlab.runs.progress import console
    from alignlab.runs.runner import run_in_folder

    console.stderr = True
    plan = plan_of(config)
    return plan.folder, run_in_folder(plan, plan.folder).to_json()


def _alignlab(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch

    import alignlab.jobs.modpo  # noqa: F401  # imports are no part of either side's seconds
    from alignlab.config.objectives import objectives_of

    fresh = uuid.uuid4().hex[:8]
    shutil.copytree(folder / "prepared", folder / f"runs-{fresh}")
    swept = configs(
        arguments, folder, f"w={arguments.w}", one_objective(arguments), runs=f"runs-{fresh}", cache=f"cache-{fresh}"
    )
    told: dict[str, Any] = {"losses": {}, "rows": {}, "each": {}, "stages": {}}
    records: list[dict[str, Any]] = []
    start, cpu = time.perf_counter(), time.process_time()
    with recording(records):
        for config in swept:
            begin, w = time.perf_counter(), f"{config.w:g}"
            _, result = _run(config)
            told["each"][w] = time.perf_counter() - begin
            told["stages"][w] = result["seconds"]
            (margin,), counts = objectives_of(config).others, result["cache"]
            told["rows"][w] = {
                "reference": counts["reference"]["computed"],
                "margin": counts[margin]["computed"],
            }
    spent = {"training": time.perf_counter() - start, "cpu": time.process_time() - cpu}
    told["losses"] = {
        w: torch.stack(record.pop("losses")).tolist() for w, record in zip(told["each"], records, strict=True)
    }
    torch.save(dict(zip(told["losses"], records, strict=True)), folder / RECORDED)
    return spent | told


@contextmanager
def recording(records: list[dict[str, Any]]) -> Iterator[None]:
    """Notes what every training starts from, takes and says: the adapter's first weights, the rows in order, losses."""
    from transformers import TrainerCallback

    from alignlab.training import preference as trainer
    from benchmarks.trainers import losses_of

    class Start(TrainerCallback):  # type: ignore[misc]
        def on_train_begin(self, *_: Any, model: Any, **__: Any) -> None:
            weights = {name: value.detach().clone() for name, value in model.named_parameters() if value.requires_grad}
            records[-1]["initial"] = weights

    train = trainer.run_trainer

    def run_trainer(engine: Any, checkpoints: Path, **watch: Any) -> None:
        taken: list[tuple[list[int], list[int], list[int]]] = []
        records.append({"pairs": taken, "losses": losses_of(engine)})
        collate = engine.data_collator

        def collated(examples: list[dict[str, Any]]) -> Any:
            taken.extend((row["prompt_ids"], row["chosen_ids"], row["rejected_ids"]) for row in examples)
            return collate(examples)

        engine.data_collator = collated
        engine.add_callback(Start())
        train(engine, checkpoints, **watch)

    trainer.run_trainer = run_trainer
    try:
        yield
    finally:
        trainer.run_trainer = train


def _original(arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    import torch
    from transformers import AutoTokenizer

    from alignlab.models.prompts import PromptEncoder
    from benchmarks.original import train_as_the_original

    recorded = torch.load(folder / RECORDED)
    (margin,) = (file.parent for file in (folder / "prepared").rglob("adapter_model.safetensors"))
    told: dict[str, Any] = {"attention": arguments.attention, "losses": {}, "rows": {}, "each": {}}
    swept = configs(arguments, folder, f"w={arguments.w}", one_objective(arguments), runs="none", cache="none")
    start, cpu = time.perf_counter(), time.process_time()
    for config in swept:
        begin, w = time.perf_counter(), f"{config.w:g}"
        encoder = PromptEncoder(AutoTokenizer.from_pretrained(folder / "model"), TEMPLATE)
        told["losses"][w], counted = train_as_the_original(
            folder / "model",
            margin,
            encoder,
            steps_of(recorded[w]["pairs"], encoder, config, config.trainer.per_device_train_batch_size),
            held_out=held_out_steps(encoder, config),
            initial=recorded[w]["initial"],
            w=config.w,
            beta=config.algorithm.beta,
            trainer=config.trainer,
            peft=config.peft,
            attention=arguments.attention,
        )
        told["rows"][w] = dataclasses.asdict(counted)
        told["each"][w] = time.perf_counter() - begin
    return {"training": time.perf_counter() - start, "cpu": time.process_time() - cpu} | told


def held_out_steps(encoder: Any, config: Any) -> list[Any]:
    """The held-out pairs of the trained objective as batches."""
    from alignlab.config.objectives import objectives_of
    from alignlab.data.records import pairs_by
    from alignlab.data.sources import read_ranked_rows, select_split
    from alignlab.engine.scoring.rows import encode_pairs

    rows = select_split(read_ranked_rows(config.dataset), config.dataset, "test")
    labelled = pairs_by(rows, objectives_of(config).trained)
    held_out = encode_pairs(
        labelled, encoder, max_length=config.trainer.max_length, on_long=config.dataset.on_long
    ).pairs
    taken = [(pair.chosen.prompt_ids, pair.chosen.response_ids, pair.rejected.response_ids) for pair in held_out]
    return steps_of(taken, encoder, config, config.trainer.per_device_eval_batch_size)


def steps_of(taken: list[tuple[list[int], list[int], list[int]]], encoder: Any, config: Any, size: int) -> list[Any]:
    """Pairs of tokens as batches of `size`, with the texts that they were made of."""
    from alignlab.data.sources import read_ranked_rows
    from alignlab.engine.scoring.rows import fit
    from alignlab.models.prompts import Encoded
    from benchmarks.original import Step

    rows = read_ranked_rows(config.dataset)
    texts = [(row.prompt, response) for row in rows for response in row.responses]
    encoded = (fit(row, config.trainer.max_length) for row in encoder.encode_all(texts))
    text_of = dict(zip((row.key for row in encoded), texts, strict=True))
    steps = []
    for start in range(0, len(taken), size):
        batch = taken[start : start + size]
        sides = [[Encoded(prompt, pair[side]) for prompt, *pair in batch] for side in (0, 1)]
        steps.append(Step(sides[0] + sides[1], [text_of[row.key] for row in sides[0] + sides[1]]))
    return steps


def summarise(runs: Runs) -> dict[str, Any]:
    """Ratio of the whole sweeps, rows forwarded beside the policy's, and how far the losses lie apart."""
    ours, theirs = runs["alignlab"][0], runs["original"][0]
    return {
        "w": list(ours["losses"]),
        "attention": runs["original"][0]["attention"],
        "ratio": median_ratio(runs, "training", slow="original", fast="alignlab"),
        "ratio_cpu": median_ratio(runs, "cpu", slow="original", fast="alignlab"),
        "seconds": seconds_of(runs, ("training", "cpu")),
        "stages": ours["stages"],
        "each": {kind: of_kind[0]["each"] for kind, of_kind in runs.items()},
        "rows": {kind: of_kind[0]["rows"] for kind, of_kind in runs.items()},
        "loss_difference": {w: greatest_difference(theirs["losses"][w], ours["losses"][w]) for w in ours["losses"]},
        "last_loss": {kind: {w: of_kind[0]["losses"][w][-1] for w in ours["losses"]} for kind, of_kind in runs.items()},
        "steps": {w: len(losses) for w, losses in ours["losses"].items()},
    }


def table(summary: dict[str, Any]) -> str:
    """The figures as Markdown."""
    lines = [
        "| w | rows forwarded beside the policy's: original, reference + margin | alignlab, reference + margin "
        "| seconds: original | alignlab | last loss: original | alignlab | greatest difference of a step's loss |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for w in summary["w"]:
        cells = [" + ".join(f"{n:,}" for n in summary["rows"][kind][w].values()) for kind in ("original", "alignlab")]
        cells += [f"{summary['each'][kind][w]:.1f}" for kind in ("original", "alignlab")]
        cells += [f"{summary['last_loss'][kind][w]:.6f}" for kind in ("original", "alignlab")]
        lines.append(f"| {w} | {' | '.join(cells)} | {summary['loss_difference'][w]:.1e} |")
    whole = {
        kind: ", ".join(f"{value:.1f}" for value in times["training"]) for kind, times in summary["seconds"].items()
    }
    lines += [
        "",
        f"The whole sweep: original ({summary['attention']} attention) {whole['original']} s, "
        f"alignlab {whole['alignlab']} s, ratio **{summary['ratio']:.1f}** "
        f"(by processor time {summary['ratio_cpu']:.1f}).",
        "",
        machine_line(summary["machine"]),
    ]
    return "\n".join(lines)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=Path, required=True, help="rows in PKU-SafeRLHF's columns, JSONL or Parquet")
    parser.add_argument("--shape", choices=SHAPES, default="pairs", help="the rows, or six ranked responses of each")
    parser.add_argument(
        "--requests",
        type=int,
        help="rows that are trained on, 48 or 4 ranked sets unless given; a ninth more are held out",
    )
    parser.add_argument("--w", default=WEIGHTS, help="values of w, separated by commas")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, help="pairs of a step; six, or two requests' thirty, unless given")
    parser.add_argument("--repeat", type=int, default=1, help="runs of each kind")
    parser.add_argument("--hidden", type=int, default=256)
    parser.add_argument("--layers", type=int, default=6)
    parser.add_argument("--vocabulary", type=int, default=8000, help="tokens of the BPE that is trained on the rows")
    parser.add_argument("--lora-rank", type=int, default=64)
    parser.add_argument("--max-length", type=int, default=512, help="tokens of prompt and response")
    parser.add_argument(
        "--attention",
        choices=("eager", "sdpa"),
        default="eager",
        help="of the original's side: eager is what its pinned transformers 4.34.1 has, sdpa what it would have today",
    )
    parser.add_argument("--threads", type=int, help="CPU threads; torch's choice unless given")
    parser.add_argument("--json", type=Path, help="where the figures are written")
    parser.add_argument("--one", choices=KINDS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    return parser


if __name__ == "__main__":
    main()
