"""A reward for one objective: implicit (DPO; also the front's end at w=0), classifier, cost model or probe."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
from datasets import Dataset
from transformers import AutoTokenizer

from alignlab.config.plan import Plan
from alignlab.config.schema import RewardModelConfig
from alignlab.data.records import Prompt, RankedRow, pairs_by
from alignlab.data.safe_pairs import labelled_pairs
from alignlab.engine.cache.scores import shared_scores
from alignlab.errors import ConfigError
from alignlab.evaluation.cost import say_signs, sign_metrics
from alignlab.evaluation.measure import preference_metrics
from alignlab.jobs.preference import prepare, train_and_measure
from alignlab.models.base import Base
from alignlab.models.cards import ClassifierCard, save_card
from alignlab.prerequisites.probes import REWARD, ProbeReader, fit_and_measure
from alignlab.prerequisites.rewards import state_cache
from alignlab.prerequisites.rows import ModelAndRows, model_and_kept_rows, with_safety
from alignlab.rewards.classifier import load_classifier, trained_source
from alignlab.rewards.reading import TextReader
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.training.classifier import NewClassifier, classifier_on_processes, read_pairs


def run(plan: Plan[RewardModelConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure. An adapter's card holds beta, base, template and data, without which it has no scale.

    Args: every job's, see `alignlab.jobs`.
    """
    match plan.algorithm.kind:
        case "implicit":
            train_and_measure(prepare(plan, run, outcome, check=True), plan.algorithm, run, outcome)
        case "probe":
            _fit_probe(plan, run, outcome)
        case _:
            _train_classifier(plan, run, outcome)


def _fit_probe(plan: Plan[RewardModelConfig], run: RunFolder, outcome: Outcome) -> None:
    """Fit a linear reward to hidden states of the base model."""
    with run.stage("prerequisites"):
        loaded = model_and_kept_rows(plan.model, plan.rows, outcome)
    cache = state_cache(shared_scores(plan.cache))
    reader = ProbeReader(loaded.base, plan.algorithm, plan.recipe.trainer, cache)
    fit_and_measure(plan.algorithm, plan.objectives.trained, loaded, reader, run, outcome)


def _train_classifier(plan: Plan[RewardModelConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train a score head, with LoRA or with all weights, and measure what was saved, loaded anew."""
    trainer, model = plan.recipe.trainer, plan.model.settings
    with run.stage("prerequisites"):
        loaded = model_and_kept_rows(plan.model, plan.rows, outcome)
    base = loaded.base
    tokenizer = AutoTokenizer.from_pretrained(base.path, revision=base.revision, trust_remote_code=False)
    reader = TextReader(tokenizer, template=model.prompt_template, eos=True, max_length=trainer.max_length, key="model")
    table = _table(plan.algorithm.kind, plan.objectives.trained, loaded, reader, outcome)
    folder, dtype = run.path / REWARD, plan.model.dtype
    with run.stage("training"):
        new = NewClassifier(base.path, base.revision, dtype, plan.algorithm.full, REWARD)
        classifier_on_processes(plan.recipe, base, table, new, run.path)
    card = ClassifierCard(
        kind=plan.algorithm.kind,
        objective=plan.objectives.trained,
        base=base.id,
        template=model.prompt_template,
        eos=True,
        max_length=trainer.max_length,
        dataset=plan.rows.settings.name,
        data=outcome.inputs["pairs"],
    )
    save_card(folder, card)
    outcome.artifacts[REWARD] = REWARD
    with run.stage("held-out preferences"):
        score = _scorer(folder, base, dtype, batch_size=trainer.per_device_eval_batch_size)
        outcome.metrics |= _metrics(score, loaded.held_out, list(plan.rows.settings.objectives))
        if plan.algorithm.kind == "cost":
            signs = _signs(score, with_safety(loaded.held_out, plan.rows))
            say_signs(signs)
            outcome.metrics |= signs


def _table(kind: str, objective: str, loaded: ModelAndRows, reader: TextReader, outcome: Outcome) -> Dataset:
    """The pairs that are trained on, a cost model's with their safety labels; says and counts what is left out.

    Args:
        kind: classifier or cost.
        objective: that it learns.
        loaded: the training rows.
        reader: the classifier's.
        outcome: takes the counts.

    Raises:
        ConfigError: if a cost model's rows hold no safety labels.
    """
    safe, counts = None, {}
    pairs = pairs_by(loaded.ranked, objective)
    if kind == "cost":
        found = labelled_pairs(with_safety(loaded.ranked, loaded.source), objective)
        pairs, safe = found.pairs, found.safe
        counts = {"unlabelled": found.unlabelled, "contradicting": found.contradicting}
        unsafe = sum(not one for both in safe for one in both)
        said = f"{len(pairs)} pairs of {objective}, {unsafe} of their {2 * len(pairs)} responses unsafe"
        say(f"{said}; {found.contradicting} rank unsafe above safe; {found.unlabelled} left out, unlabelled")
        if not pairs:
            what = f"no pair of {objective} says of both responses whether they are safe"
            raise ConfigError(f"dataset={loaded.source.settings.name}: {what}, which algorithm.kind=cost learns")
    read = read_pairs(pairs, reader, safe)
    outcome.extra["rows"] = {"train": len(read.table), "identical": read.identical, "cut": read.cut, **counts}
    if read.identical or read.cut:
        left_out = f"{read.identical} pairs left out (both texts identical after truncation)"
        say(f"{left_out}, {read.cut} texts cut at trainer.max_length={reader.max_length}")
    return read.table


Text = tuple[Prompt, str]


def _scorer(folder: Path, base: Base, dtype: str, *, batch_size: int) -> Callable[[Sequence[Text]], list[float]]:
    """Scores of (prompt, response) by the classifier in a folder, loaded as any other run would load it.

    Args:
        folder: the classifier's.
        base: what its adapter is loaded onto.
        dtype: of the weights.
        batch_size: rows of a forward.
    """
    source = trained_source("algorithm", folder, base, dtype=dtype)
    known: dict[Text, float] = {}

    def scores(texts: Sequence[Text]) -> list[float]:
        if new := [text for text in dict.fromkeys(texts) if text not in known]:
            device = str(base.device)
            reader, scorer = load_classifier(source, device=device, batch_size=batch_size, label="held-out scores")
            known.update(zip(new, scorer(reader.read_all(new)).double().tolist(), strict=True))
        return [known[text] for text in texts]

    return scores


def _metrics(
    score: Callable[[Sequence[Text]], list[float]], rows: Sequence[RankedRow], objectives: Sequence[str]
) -> dict[str, dict[str, object]]:
    """Accuracy and margin by every objective's labels on held-out pairs; intervals over prompts."""
    by_objective = {name: pairs for name in objectives if (pairs := pairs_by(rows, name))}
    found = [pair for pairs in by_objective.values() for pair in pairs]
    texts = list(dict.fromkeys((pair.prompt, text) for pair in found for text in (pair.chosen, pair.rejected)))
    scores = dict(zip(texts, score(texts), strict=True))
    metrics: dict[str, dict[str, object]] = {}
    for name, pairs in by_objective.items():
        margins = np.array([scores[pair.prompt, pair.chosen] - scores[pair.prompt, pair.rejected] for pair in pairs])
        metrics |= preference_metrics(name, margins, [pair.group for pair in pairs])
    return metrics


def _signs(score: Callable[[Sequence[Text]], list[float]], rows: Sequence[RankedRow]) -> dict[str, dict[str, object]]:
    """Accuracy of the score's sign on the held-out responses that are labelled safe or unsafe, each counted once."""
    labels = {
        (row.prompt, text): (safe, row.group)
        for row in rows
        for text, safe in zip(row.responses, row.safe or (None,) * len(row.responses), strict=True)
        if safe is not None
    }
    scores = np.array(score(list(labels)))
    return sign_metrics(scores, [safe for safe, _ in labels.values()], [group for _, group in labels.values()])
