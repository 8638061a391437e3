"""What evaluate and logit_mix share: a policy's samples on held-out prompts, scored by the run's scorers."""

import json
from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

from alignlab.config.parts import RewardSource, Sampling
from alignlab.config.plan import Plan
from alignlab.config.schema import JoinedConfig, JudgedConfig
from alignlab.data.records import RankedRow
from alignlab.errors import ConfigError
from alignlab.evaluation.categories import categories_of, record_categories
from alignlab.evaluation.measure import GENERATIONS, Policy
from alignlab.evaluation.quality import measure_quality
from alignlab.evaluation.scored import (
    decoding,
    describe,
    held_out_prompts,
    keep_scores_of,
    read_said,
    response_limit,
    sampled,
    score_said,
)
from alignlab.io.hashes import text_id
from alignlab.prerequisites.reward_report import RewardContext, normalised, prepared_rewards
from alignlab.prerequisites.rewards import RewardParts, reward
from alignlab.prerequisites.rows import training_rows
from alignlab.rewards.base import Reward
from alignlab.rewards.joined import JoinedReward
from alignlab.rewards.normalise import read_statistics
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def score(plan: Plan[Any], policy: Policy, run: RunFolder, outcome: Outcome, held_out: list[RankedRow]) -> None:
    """Sample the policy on held-out prompts, unless `measure` has, and score what it says by every scorer.

    Args:
        plan: the run.
        policy: what is sampled.
        run: keeps the records.
        outcome: takes the metrics.
        held_out: rows of the test split.
    """
    generator = plan.local_generator
    if generator.max_new_tokens == 0:
        generator = replace(generator, max_new_tokens=response_limit(held_out, policy.base.encoder))
        say(f"generator.max_new_tokens: {generator.max_new_tokens}, by the length of the data's own responses")
    sampling = Sampling(generator, plan.seed)
    parts = RewardParts(policy.base, policy.cache, run.make_run)
    rewards = _rewards(plan, parts, run, outcome, held_out, policy)
    categories = categories_of(held_out)
    prompts = held_out_prompts(held_out, plan.local_generator.prompts)
    if "generations" in outcome.artifacts:
        said = read_said(run.path, {})
    elif not prompts:
        raise ConfigError(f"dataset={plan.rows.settings.name}: its {plan.rows.settings.eval_split} split is empty")
    else:
        said = sampled(policy, run, prompts, sampling, categories)
        outcome.artifacts["generations"] = GENERATIONS
        describe(said, run.path, outcome)
    measure_quality(
        policy, run, outcome, settings=plan.rows.settings, sampling=sampling, is_toy=plan.rows.toy is not None
    )
    shares = {name for name, source in plan.scorers.items() if isinstance(source.settings, JudgedConfig)}

    def one_by_one() -> Iterator[tuple[str, Reward]]:
        """Each scorer, loaded when its turn comes."""
        for name, source in plan.scorers.items():
            one = rewards[name] if name in rewards else reward(source, parts)
            if isinstance(one, JoinedReward):
                texts = [(row.prompt, row.text) for row in said]
                behind = [] if policy.is_reference else [run.make_run(plan.evaluation(None))]
                one = one.scaled(policy.base.encoder.encode_all(texts, sampled=True), run.path, behind)
            yield name, one

    outcome.extra["scorers"] = {
        name: {"settings": asdict(one.settings), "content": one.content()} for name, one in plan.scorers.items()
    }
    keep_scores_of(plan.scorers, run.path)
    score_said(said, run, outcome, one_by_one(), shares=shares)
    record_categories(said, run.path, outcome, categories, shares)
    if set(plan.scorers) >= set(outcome.axes):
        outcome.axes = {name: f"{name}_reward" for name in outcome.axes}
    ids = {name: record["id"] for name, record in outcome.extra["scorers"].items()}
    outcome.inputs |= {
        "scorers": json.dumps(ids, sort_keys=True),
        "decoding": json.dumps(decoding(sampling), sort_keys=True),
        "prompts": text_id(*sorted({row.group for row in said})),
    }


def _rewards(
    plan: Plan[Any],
    parts: RewardParts,
    run: RunFolder,
    outcome: Outcome,
    held_out: list[RankedRow],
    policy: Policy,
) -> dict[str, Reward]:
    """The scorers that are rewards; those of the reference's run are compared with the data's labels."""
    sources: dict[str, RewardSource] = {
        name: source
        for name, source in plan.scorers.items()
        if not isinstance(source.settings, JudgedConfig | JoinedConfig)
    }
    trainer, on_long = plan.recipe.trainer, plan.rows.settings.on_long
    context = RewardContext(sources, parts, run.path, trainer.max_length, on_long, False)
    wanted = any(source.settings.normalise for source in sources.values())
    ranked = training_rows(plan.rows, parts.base) if wanted else []
    if policy.is_reference:
        return prepared_rewards(context, outcome, ranked=ranked, held_out=held_out)
    folders = [run.path] if policy.adapter is None else [policy.adapter.parent, run.path]
    known = {name: one for folder in folders for name, one in read_statistics(folder).items()}
    rewards = {name: reward(source, parts) for name, source in sources.items()}
    return normalised(context, outcome, known, rewards, ranked)
