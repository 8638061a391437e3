"""A reward for one objective: implicit (DPO on its pairs; also the front's end at w=0), or a classifier."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from alignlab.config.identity import objectives_of
from alignlab.config.schema import ClassifierConfig, PretrainedConfig, RewardModelConfig, RunConfig
from alignlab.data.records import RankedRow, pairs_by
from alignlab.jobs.preference import data_inputs, train_and_measure
from alignlab.jobs.recipe import tracker_settings
from alignlab.models.adapters import lora_config
from alignlab.models.base import Base
from alignlab.models.cards import ClassifierCard, save_card
from alignlab.prerequisites.reference import ranked_rows, reference
from alignlab.rewards.classifier import classifier_source, load_classifier
from alignlab.rewards.reading import TextReader
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say
from alignlab.runs.tracking import tracking
from alignlab.stats import mean_interval, share_interval
from alignlab.training.classifier import lora_with_head, read_pairs, train_classifier

REWARD = "reward"
"""A classifier's folder in its run's."""


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains and measures. An adapter's card holds beta, base, template and data, without which it has no scale."""
    assert isinstance(config.algorithm, RewardModelConfig)
    if config.algorithm.kind == "implicit":
        train_and_measure(config, run, outcome)
    else:
        _train_classifier(config, config.algorithm, run, outcome)


def _train_classifier(config: RunConfig, algorithm: RewardModelConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains a score head, with LoRA or with all weights, and measures what was saved, loaded anew."""
    objective = objectives_of(config).trained
    with run.stage("prerequisites"):
        base = reference(config)
        ranked = ranked_rows(config, base, config.dataset.split)
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(config, ranked)}
    tokenizer = AutoTokenizer.from_pretrained(base.path, revision=base.revision)
    template, limit = config.model.prompt_template, config.trainer.max_length
    reader = TextReader(tokenizer, template=template, eos=True, max_length=limit)
    read = read_pairs(pairs_by(ranked, objective), reader)
    outcome.extra["rows"] = {"train": len(read.table), "alike": read.alike, "cut": read.cut}
    if read.alike or read.cut:
        say(f"{read.alike} pairs left out (both texts alike), {read.cut} texts cut at trainer.max_length={limit}")
    if config.hardware.processes > 1:
        say(f"hardware.processes={config.hardware.processes}: has no effect on a classifier, which trains on one")
    device, folder = base.device, run.path / REWARD
    base.model.to("cpu")  # its memory is needed
    with run.stage("training"), tracking(tracker_settings(config), run.path) as tracker:
        train_classifier(
            base.path,
            base.revision,
            read.table,
            dtype=_dtype(config),
            trainer=config.trainer,
            hardware=config.hardware.on_one_process(),
            seed=config.seed,
            folder=folder,
            checkpoints=run.path / "checkpoints",
            peft=None if algorithm.full else lora_with_head(lora_config(config.peft)),
            callbacks=[tracker],
        )
    card = ClassifierCard(
        kind="classifier",
        objective=objective,
        base=base.id,
        template=template,
        eos=True,
        max_length=limit,
        dataset=config.dataset.name,
        data=outcome.inputs["pairs"],
    )
    save_card(folder, card)
    base.model.to(device)
    outcome.artifacts[REWARD] = REWARD
    with run.stage("held-out preferences"):
        rows = ranked_rows(config, base, config.dataset.eval_split) if config.dataset.split is not None else []
        outcome.metrics |= _metrics(config, folder, base, rows)


def _metrics(config: RunConfig, folder: Path, base: Base, rows: Sequence[RankedRow]) -> dict[str, dict[str, object]]:
    """Accuracy and margin by every objective's labels on held-out pairs; intervals over prompts."""
    by_objective = {name: pairs_by(rows, name) for name in config.dataset.objectives}
    found = [pair for pairs in by_objective.values() for pair in pairs]
    texts = list(dict.fromkeys((pair.prompt, text) for pair in found for text in (pair.chosen, pair.rejected)))
    if not texts:
        return {}
    settings = ClassifierConfig(
        kind="classifier",
        normalise=False,
        path=str(folder),
        revision=None,
        template=None,
        eos=True,
        max_length=config.trainer.max_length,
        dtype=_dtype(config),
        negate=False,
    )
    source = classifier_source("algorithm", settings, str(folder), base)
    batch_size = config.trainer.per_device_eval_batch_size
    reader, scorer = load_classifier(
        source, device=config.hardware.device, batch_size=batch_size, label="held-out scores"
    )
    scores = dict(zip(texts, scorer(reader.read_all(texts)).double().tolist(), strict=True))
    metrics: dict[str, dict[str, object]] = {}
    for name, pairs in by_objective.items():
        if not pairs:
            continue
        margins = np.array([scores[pair.prompt, pair.chosen] - scores[pair.prompt, pair.rejected] for pair in pairs])
        groups = [pair.group for pair in pairs]
        right = np.where(margins == 0, 0.5, margins > 0)
        metrics[f"{name}_accuracy"] = share_interval(right, groups).as_record()
        metrics[f"{name}_margin"] = mean_interval(margins, groups).as_record()
    return metrics


def _dtype(config: RunConfig) -> str:
    return config.model.dtype if isinstance(config.model, PretrainedConfig) else "float32"
