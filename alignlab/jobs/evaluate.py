"""Sample, score and compare with the reference, without training."""

import os
from pathlib import Path

from alignlab.config.objectives import Objectives
from alignlab.config.plan import Plan
from alignlab.config.schema import EvaluateConfig, JudgedConfig
from alignlab.engine.cache.scores import shared_scores
from alignlab.evaluation.measure import Policy, measure
from alignlab.evaluation.quality import quality_changes
from alignlab.evaluation.scored import against_reference
from alignlab.jobs.scoring import score
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.rows import data_report, held_out_rows
from alignlab.rewards.normalise import without_unit
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Outcome


def run(plan: Plan[EvaluateConfig], run: RunFolder, outcome: Outcome) -> None:
    """Measure the reference, or an adapter on it at the weights and beta that its card says.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, trainer, cache = plan.algorithm, plan.recipe.trainer, shared_scores(plan.cache)
    reads_rows = algorithm.adapter is not None or bool(plan.scorers)
    behind = None
    if algorithm.adapter is not None and plan.scorers:
        behind = run.make_run(plan.evaluation(None))  # the reference's own samples, scored once for all policies
    with run.stage("prerequisites"):
        outcome.extra |= data_report(plan.rows, plan.model) if reads_rows else {}
        base = reference(plan.model)
        adapter, card = _adapter(algorithm, base, plan.model.settings.prompt_template)
        held_out = held_out_rows(plan.rows, base) if reads_rows else []
    outcome.inputs |= {"model": base.id, "revision": base.revision}
    objectives = _trained_for(card, plan.objectives)
    if card is not None:
        outcome.objectives, outcome.beta = objectives, card.beta
        outcome.loss_type, outcome.recipe = card.loss_type or None, card.recipe
        outcome.extra["policy"] = {"algorithm": card.algorithm, "seed": card.seed}
    if adapter is not None and adapter.is_dir():
        outcome.extra.setdefault("policy", {})["adapter"] = os.path.relpath(adapter, run.path)
    if adapter is None:
        outcome.extra["policy"] = {"algorithm": "reference", "seed": plan.seed}
    beta = card.beta if card else algorithm.beta
    scales = card.scales if card else {}
    size = trainer.per_device_eval_batch_size
    policy = Policy(
        base,
        adapter,
        beta,
        objectives or plan.objectives,
        cache,
        size,
        scales,
        key="algorithm.adapter",
        has_weights=objectives is not None,
    )
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=plan.sampling)
    if plan.scorers:
        score(plan, policy, run, outcome, held_out)
        if card is not None:
            _mark_trained_on(outcome, card)
    if behind is not None:
        shares = {name for name, source in plan.scorers.items() if isinstance(source.settings, JudgedConfig)}
        against_reference(run.path, behind, outcome, shares)
        outcome.metrics |= quality_changes(run.path, behind, outcome.artifacts)


def _adapter(
    algorithm: EvaluateConfig, base: Base, prompt_template: str | None
) -> tuple[Path | None, AdapterCard | None]:
    """Folder and card of the adapter that is evaluated, checked against the base model."""
    if algorithm.adapter is None:
        return None, None
    found = adapter_for("algorithm.adapter", algorithm.adapter, base_id=base.id, template=prompt_template)
    return found.folder, found.policy_card


def _trained_for(card: AdapterCard | None, own: Objectives) -> Objectives | None:
    """Objective and weights that a policy was trained for; None where nobody knows them, or they are of others."""
    if card is None or set(card.weights) != set(own.weights):
        return None
    return Objectives(card.objective, card.weights, own.first)


def _mark_trained_on(outcome: Outcome, card: AdapterCard) -> None:
    """Mark the scorers that are rewards which the policy was trained on: they flatter it."""
    taught = {without_unit(one) for one in card.rewards.values()}
    for record in outcome.extra["scorers"].values():
        record["trained_on"] = without_unit(record["id"]) in taught
