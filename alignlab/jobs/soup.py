"""Rewarded soups: the weighted sum of what the endpoints add to the weights, as one LoRA (arXiv 2306.04488)."""

import json
from dataclasses import dataclass
from typing import Any

from alignlab.config.plan import Plan
from alignlab.config.schema import SoupConfig
from alignlab.engine.cache.scores import shared_scores
from alignlab.evaluation.measure import Policy, measure
from alignlab.io.atomic import new_folder
from alignlab.jobs.preference import record_cache
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard, save_card
from alignlab.models.soup import change_of, of_rank, save_change, weighted_sum
from alignlab.prerequisites.endpoints import Endpoint, endpoints
from alignlab.prerequisites.rewards import RewardParts
from alignlab.prerequisites.rows import data_name, model_and_held_out
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome

SUMMED = "summed"
"""Rank of a soup that nothing was cut from, in its recipe."""


def run(plan: Plan[SoupConfig], run: RunFolder, outcome: Outcome) -> None:
    """Mix and measure; nothing is trained but endpoints that are neither named nor there.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, template = plan.algorithm, plan.model.settings.prompt_template
    with run.stage("prerequisites"):
        loaded = model_and_held_out(plan.model, plan.rows, outcome)
        base, held_out = loaded.base, loaded.held_out
        parts = RewardParts(base, shared_scores(plan.cache), run.make_run)
        mixed = endpoints(
            algorithm.adapters, plan.rewards, plan.objectives, parts, template=template, beta=algorithm.beta
        )
    ids = {one.objective: one.id for one in mixed}
    outcome.inputs |= {"model": base.id, "revision": base.revision, "dataset": data_name(plan.rows)}
    outcome.inputs["endpoints"] = json.dumps(ids, sort_keys=True)
    outcome.beta, outcome.recipe = algorithm.beta, {"rank": algorithm.rank or SUMMED}
    adapter = run.path / "adapter"
    with run.stage("mixing"), new_folder(adapter) as folder:
        mixture = _mix(base, mixed, algorithm.rank)
        rank = save_change(base.model, mixture.change, folder)
        save_card(folder, _card(plan, base, mixed, outcome.recipe))
    outcome.artifacts["adapter"] = adapter.name
    outcome.extra["soup"] = {"rank": rank, "summed_rank": mixture.summed_rank, "relative_error": mixture.error}
    batch_size = plan.recipe.trainer.per_device_eval_batch_size
    policy = Policy(base, adapter, algorithm.beta, plan.objectives, parts.cache, batch_size)
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=plan.sampling)
    record_cache(outcome, parts.cache.counts)


@dataclass(frozen=True)
class _Mixture:
    change: dict[str, Any]
    summed_rank: int
    error: float
    """Relative error of cutting the rank."""


def _mix(base: Base, mixed: list[Endpoint], rank: int | None) -> _Mixture:
    """The weighted sum, of a smaller rank if one is given; says what that leaves out."""
    change = weighted_sum([(one.weight, change_of(base.model, one.folder, key=one.key)) for one in mixed])
    summed, error = max(one.rank for one in change.values()), 0.0
    shown = " + ".join(f"{one.weight:g} {one.objective}" for one in mixed)
    if rank is None or rank >= summed:
        say(f"soup: {shown}, exact, as one LoRA of rank {summed}; no training")
    else:
        change, error = of_rank(change, rank)
        say(f"soup: {shown}, as one LoRA of rank {rank} in place of {summed}: {error:.2%} of the change is left out")
    return _Mixture(change, summed, error)


def _card(plan: Plan[SoupConfig], base: Base, mixed: list[Endpoint], recipe: dict[str, Any]) -> AdapterCard:
    """What the soup is: its weights, and what its endpoints' cards agree on."""
    cards = [one.card for one in mixed if one.card is not None]
    lengths = [card.max_length for card in cards if card.max_length is not None]
    data = {card.data for card in cards}
    return AdapterCard(
        objective="",
        beta=plan.algorithm.beta,
        base=base.id,
        prompt_template=plan.model.settings.prompt_template,
        dataset=plan.rows.settings.name,
        weights=plan.objectives.weights,
        max_length=max(lengths, default=None),
        data=data.pop() if len(data) == 1 else "",
        algorithm=plan.algorithm.name,
        seed=plan.seed,
        recipe=recipe,
        rewards={name: reward for card in cards for name, reward in card.rewards.items()},
    )
