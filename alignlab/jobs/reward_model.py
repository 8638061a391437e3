"""A reward for one objective: implicit (DPO on its pairs; also the front's end at w=0), a classifier, or a probe."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from transformers import AutoTokenizer

from alignlab.config.plan import Plan
from alignlab.config.schema import ClassifierConfig, RewardModelConfig, TrainerConfig
from alignlab.data.records import Prompt, RankedRow, pairs_by
from alignlab.evaluation.measure import preference_metrics
from alignlab.jobs.preference import train_and_measure
from alignlab.models.adapters import lora_config
from alignlab.models.base import Base
from alignlab.models.cards import ClassifierCard, save_card
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.probes import REWARD, fit_and_measure
from alignlab.prerequisites.rows import data_inputs, data_report, held_out_rows, kept_rows, training_rows
from alignlab.rewards.classifier import classifier_source, load_classifier
from alignlab.rewards.reading import TextReader
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.runs.tracking import tracking
from alignlab.training.classifier import lora_with_head, read_pairs, train_classifier


def run(plan: Plan[RewardModelConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure. An adapter's card holds beta, base, template and data, without which it has no scale."""
    by_kind = {"implicit": train_and_measure, "classifier": _train_classifier, "probe": fit_and_measure}
    by_kind[plan.algorithm.kind](plan, run, outcome)


def _train_classifier(plan: Plan[RewardModelConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train a score head, with LoRA or with all weights, and measure what was saved, loaded anew."""
    objective, trainer, model = plan.objectives.trained, plan.recipe.trainer, plan.model.settings
    with run.stage("prerequisites"):
        outcome.extra |= data_report(plan.rows)
        base = reference(plan.model)
        ranked, held_out = training_rows(plan.rows, base), held_out_rows(plan.rows, base)
        ranked = kept_rows(ranked, plan.rows, outcome)
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(plan.rows, ranked)}
    tokenizer = AutoTokenizer.from_pretrained(base.path, revision=base.revision, trust_remote_code=False)
    reader = TextReader(tokenizer, template=model.prompt_template, eos=True, max_length=trainer.max_length)
    read = read_pairs(pairs_by(ranked, objective), reader)
    outcome.extra["rows"] = {"train": len(read.table), "alike": read.alike, "cut": read.cut}
    if read.alike or read.cut:
        left_out = f"{read.alike} pairs left out (both texts alike)"
        say(f"{left_out}, {read.cut} texts cut at trainer.max_length={trainer.max_length}")
    device, folder, dtype = base.device, run.path / REWARD, plan.model.dtype
    base.model.to("cpu")  # its memory is needed
    with run.stage("training"), tracking(plan.recipe.tracker, run.path) as tracker:
        train_classifier(
            base.path,
            base.revision,
            read.table,
            dtype=dtype,
            trainer=trainer,
            hardware=plan.recipe.hardware.on_one_process(),
            seed=plan.seed,
            folder=folder,
            checkpoints=run.path / "checkpoints",
            peft=None if plan.algorithm.full else lora_with_head(lora_config(plan.recipe.peft)),
            callbacks=[tracker],
        )
    card = ClassifierCard(
        kind="classifier",
        objective=objective,
        base=base.id,
        template=model.prompt_template,
        eos=True,
        max_length=trainer.max_length,
        dataset=plan.rows.settings.name,
        data=outcome.inputs["pairs"],
    )
    save_card(folder, card)
    base.model.to(device)
    outcome.artifacts[REWARD] = REWARD
    with run.stage("held-out preferences"):
        score = _scorer(folder, base, trainer, dtype)
        outcome.metrics |= _metrics(score, held_out, list(plan.rows.settings.objectives))


Text = tuple[Prompt, str]


def _scorer(folder: Path, base: Base, trainer: TrainerConfig, dtype: str) -> Callable[[Sequence[Text]], list[float]]:
    """Scores of (prompt, response) by the classifier in a folder, loaded as any other run would load it."""
    settings = ClassifierConfig(
        kind="classifier",
        normalise=False,
        path=str(folder),
        revision=None,
        template=None,
        eos=True,
        max_length=trainer.max_length,
        dtype=dtype,
        negate=False,
    )
    source = classifier_source("algorithm", settings, str(folder), base)
    size, device = trainer.per_device_eval_batch_size, str(base.device)

    def scores(texts: Sequence[Text]) -> list[float]:
        reader, scorer = load_classifier(source, device=device, batch_size=size, label="held-out scores")
        found: list[float] = scorer(reader.read_all(texts)).double().tolist()
        return found

    return scores


def _metrics(
    score: Callable[[Sequence[Text]], list[float]], rows: Sequence[RankedRow], objectives: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Accuracy and margin by every objective's labels on held-out pairs; intervals over prompts."""
    by_objective = {name: pairs for name in objectives if (pairs := pairs_by(rows, name))}
    found = [pair for pairs in by_objective.values() for pair in pairs]
    texts = list(dict.fromkeys((pair.prompt, text) for pair in found for text in (pair.chosen, pair.rejected)))
    scores = dict(zip(texts, score(texts), strict=True)) if texts else {}
    metrics: dict[str, dict[str, object]] = {}
    for name, pairs in by_objective.items():
        margins = np.array([scores[pair.prompt, pair.chosen] - scores[pair.prompt, pair.rejected] for pair in pairs])
        metrics |= preference_metrics(name, margins, [pair.group for pair in pairs])
    return metrics
