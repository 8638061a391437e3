"""Sample, score and compare with the reference, without training."""

from pathlib import Path

from alignlab.config.objectives import Objectives
from alignlab.config.plan import Plan
from alignlab.config.schema import EvaluateConfig
from alignlab.engine.cache.scores import ScoreCache
from alignlab.evaluation.measure import Policy, Sampling, measure
from alignlab.evaluation.scored import score_samples
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.reward_report import RewardContext, prepared_rewards
from alignlab.prerequisites.rewards import RewardParts
from alignlab.prerequisites.rows import data_report, held_out_rows, training_rows
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Outcome


def run(plan: Plan[EvaluateConfig], run: RunFolder, outcome: Outcome) -> None:
    """Measure the reference, or an adapter on it at the weights and beta that its card says."""
    algorithm, trainer, cache = plan.algorithm, plan.recipe.trainer, ScoreCache(plan.cache / "scores")
    reads_rows = algorithm.adapter is not None or bool(plan.rewards)
    with run.stage("prerequisites"):
        outcome.extra |= data_report(plan.rows) if reads_rows else {}
        base = reference(plan.model)
        adapter, card = _adapter(algorithm, base, plan.model.settings.prompt_template)
        ranked = training_rows(plan.rows, base) if reads_rows else []
        held_out = held_out_rows(plan.rows, base) if reads_rows else []
        context = RewardContext(
            plan.rewards,
            RewardParts(base, cache, run.make_run),
            run.path,
            trainer.max_length,
            plan.rows.settings.on_long,
            False,
        )
        trained_in = () if adapter is None else (adapter.parent,)
        rewards = prepared_rewards(context, outcome, ranked=ranked, held_out=held_out, also_in=trained_in)
    outcome.inputs |= {"model": base.id, "revision": base.revision}
    objectives = _of_card(card, plan.objectives)
    if card is not None:
        outcome.objectives, outcome.beta = objectives, card.beta
    beta = card.beta if card else algorithm.beta
    policy = Policy(base, adapter, beta, objectives, cache, trainer.per_device_eval_batch_size)
    sampling = lambda: Sampling(plan.local_generator, plan.seed)  # noqa: E731
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=sampling)
    if rewards:
        rows = held_out or ranked
        score_samples(policy, run, outcome, rewards, rows=rows, most_prompts=algorithm.prompts, sampling=sampling)


def _adapter(
    algorithm: EvaluateConfig, base: Base, prompt_template: str | None
) -> tuple[Path | None, AdapterCard | None]:
    """Folder and card of the adapter that is evaluated, checked against the base model."""
    if algorithm.adapter is None:
        return None, None
    found = adapter_for("algorithm.adapter", algorithm.adapter, base_id=base.id, template=prompt_template)
    return found.folder, found.policy_card


def _of_card(card: AdapterCard | None, own: Objectives) -> Objectives:
    """Objective and weights that a policy was trained for; this run's where nobody knows, or where they are others."""
    known = card is not None and set(card.weights) == set(own.weights)
    return Objectives(card.objective, card.weights) if card is not None and known else own
