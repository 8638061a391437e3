"""Sample, score and compare with the reference, without training."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from pathlib import Path

from alignlab.config.objectives import Objectives
from alignlab.config.plan import Plan, RewardSource
from alignlab.config.schema import EvaluateConfig, JudgedConfig
from alignlab.data.records import RankedRow
from alignlab.engine.cache.scores import ScoreCache
from alignlab.errors import ConfigError
from alignlab.evaluation.measure import GENERATIONS, Policy, Sampling, measure
from alignlab.evaluation.scored import (
    against_reference,
    decoding,
    describe,
    held_out_prompts,
    read_said,
    response_limit,
    sampled,
    score_said,
)
from alignlab.io.hashes import text_id
from alignlab.models.adapters import adapter_for
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.reward_report import RewardContext, normalised, prepared_rewards
from alignlab.prerequisites.rewards import RewardParts, reward
from alignlab.prerequisites.rows import data_report, held_out_rows, training_rows
from alignlab.rewards.base import Reward
from alignlab.rewards.normalise import read_statistics
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[EvaluateConfig], run: RunFolder, outcome: Outcome) -> None:
    """Measure the reference, or an adapter on it at the weights and beta that its card says."""
    algorithm, trainer, cache = plan.algorithm, plan.recipe.trainer, ScoreCache(plan.cache / "scores")
    reads_rows = algorithm.adapter is not None or bool(plan.scorers)
    behind = None
    if algorithm.adapter is not None and plan.scorers:
        behind = run.make_run(plan.evaluation(None))  # the reference's own samples, scored once for all policies
    with run.stage("prerequisites"):
        outcome.extra |= data_report(plan.rows) if reads_rows else {}
        base = reference(plan.model)
        adapter, card = _adapter(algorithm, base, plan.model.settings.prompt_template)
        held_out = held_out_rows(plan.rows, base) if reads_rows else []
    outcome.inputs |= {"model": base.id, "revision": base.revision}
    objectives = _of_card(card, plan.objectives)
    if card is not None:
        outcome.objectives, outcome.beta = objectives, card.beta
        outcome.loss_type, outcome.recipe = card.loss_type or None, card.recipe
        outcome.extra["policy"] = {"algorithm": card.algorithm, "seed": card.seed}
    if adapter is None:
        outcome.extra["policy"] = {"algorithm": "reference", "seed": plan.seed}
    beta = card.beta if card else algorithm.beta
    scales = card.scales if card else {}
    policy = Policy(base, adapter, beta, objectives, cache, trainer.per_device_eval_batch_size, scales)
    sampling = lambda: Sampling(plan.local_generator, plan.seed)  # noqa: E731
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=sampling)
    if plan.scorers:
        _score(plan, policy, run, outcome, held_out)
        if card is not None:
            _mark_trained_on(outcome, card)
    if behind is not None:
        shares = {name for name, source in plan.scorers.items() if isinstance(source.settings, JudgedConfig)}
        against_reference(run.path, behind, outcome, shares)


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
    return Objectives(card.objective, card.weights, own.first) if card is not None and known else own


def _score(
    plan: Plan[EvaluateConfig], policy: Policy, run: RunFolder, outcome: Outcome, held_out: list[RankedRow]
) -> None:
    """Sample the policy on held-out prompts, unless `measure` has, and score what it says by every scorer."""
    generator = plan.local_generator
    if generator.max_new_tokens == 0:
        generator = replace(generator, max_new_tokens=response_limit(held_out, policy.base.encoder))
        say(f"generator.max_new_tokens: {generator.max_new_tokens}, by the length of the data's own responses")
    sampling = Sampling(generator, plan.seed)
    parts = RewardParts(policy.base, policy.cache, run.make_run)
    rewards = _rewards(plan, parts, run, outcome, held_out, policy.adapter)
    prompts = held_out_prompts(held_out, plan.local_generator.prompts)
    if "generations" in outcome.artifacts:
        said = read_said(run.path, {})
    elif not prompts:
        raise ConfigError(f"dataset={plan.rows.settings.name}: its {plan.rows.settings.eval_split} split is empty")
    else:
        said = sampled(policy, run, prompts, sampling)
        outcome.artifacts["generations"] = GENERATIONS
        describe(said, run.path, outcome)
    shares = {name for name, source in plan.scorers.items() if isinstance(source.settings, JudgedConfig)}

    def one_by_one() -> Iterator[tuple[str, Reward]]:
        for name, source in plan.scorers.items():
            yield name, rewards[name] if name in rewards else reward(source, parts)

    outcome.extra["scorers"] = {name: {"settings": asdict(one.settings)} for name, one in plan.scorers.items()}
    score_said(said, run, outcome, one_by_one(), shares=shares)
    if set(plan.scorers) >= set(outcome.axes):
        outcome.axes = {name: f"{name}_reward" for name in outcome.axes}
    ids = {name: record["id"] for name, record in outcome.extra["scorers"].items()}
    outcome.inputs |= {
        "scorers": json.dumps(ids, sort_keys=True),
        "decoding": json.dumps(decoding(sampling), sort_keys=True),
        "prompts": text_id(*sorted({row.group for row in said})),
    }


def _rewards(
    plan: Plan[EvaluateConfig],
    parts: RewardParts,
    run: RunFolder,
    outcome: Outcome,
    held_out: list[RankedRow],
    adapter: Path | None,
) -> dict[str, Reward]:
    """The scorers that are rewards; those of the reference's run are compared with the data's labels."""
    sources: dict[str, RewardSource] = {
        name: source for name, source in plan.scorers.items() if not isinstance(source.settings, JudgedConfig)
    }
    trainer, on_long = plan.recipe.trainer, plan.rows.settings.on_long
    context = RewardContext(sources, parts, run.path, trainer.max_length, on_long, False)
    wanted = any(source.settings.normalise for source in sources.values())
    ranked = training_rows(plan.rows, parts.base) if wanted else []
    if adapter is None:
        return prepared_rewards(context, outcome, ranked=ranked, held_out=held_out)
    known = {name: one for folder in (adapter.parent, run.path) for name, one in read_statistics(folder).items()}
    rewards = {name: reward(source, parts) for name, source in sources.items()}
    return normalised(context, outcome, known, rewards, ranked)


def _mark_trained_on(outcome: Outcome, card: AdapterCard) -> None:
    """Mark the scorers that are rewards which the policy was trained on: they flatter it."""
    for record in outcome.extra["scorers"].values():
        record["trained_on"] = record["id"] in card.rewards.values()
