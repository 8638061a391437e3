"""What dpo, modpo, rebel and reward_model share: preparing, rows with a tilted reference, training, measuring."""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from alignlab.config.plan import Plan
from alignlab.config.schema import PreferenceConfig
from alignlab.data.records import RankedRow, num_unranked, pairs_by
from alignlab.engine.cache.scores import CacheCount, ScoreCache
from alignlab.engine.scoring.rows import EncodedPairs, encode_pairs, encode_what_fits
from alignlab.evaluation.measure import Policy, Sampling, measure, ranked_by_rewards
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard, save_card
from alignlab.prerequisites.models import reference
from alignlab.prerequisites.reward_report import RewardContext, prepared_rewards, record_learnt_tilt, record_tilts
from alignlab.prerequisites.rewards import RewardParts
from alignlab.prerequisites.rows import data_inputs, data_report, held_out_rows, kept_rows, training_rows
from alignlab.rewards.base import Reward
from alignlab.rewards.implicit import reference_logps
from alignlab.rewards.normalise import read_statistics
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.training.conflict import ConflictAversion
from alignlab.training.launch import train_on_processes
from alignlab.training.losses import PreferenceLoss, reward_tilt


@dataclass(frozen=True)
class Prepared:
    """Base model, rows and rewards of a run, before the pairs of one objective are taken."""

    base: Base
    parts: RewardParts
    ranked: list[RankedRow]
    held_out: list[RankedRow]
    rewards: dict[str, Reward]

    @property
    def cache(self) -> ScoreCache:
        """Scores that runs share."""
        return self.parts.cache


def prepare(plan: Plan[Any], run: RunFolder, outcome: Outcome, *, check: bool) -> Prepared:
    """Load or make the base model, the rows and the other objectives' rewards, and record them.

    Args:
        plan: the run.
        run: its folder.
        outcome: takes inputs and reports.
        check: whether a reward that contradicts its labels ends the run.
    """
    with run.stage("prerequisites"):
        outcome.extra |= data_report(plan.rows, plan.model)
        base = reference(plan.model)
        ranked, held_out = training_rows(plan.rows, base), held_out_rows(plan.rows, base)
        parts = RewardParts(base, ScoreCache(plan.cache / "scores"), run.make_run)
        max_length, on_long = plan.recipe.trainer.max_length, plan.rows.settings.on_long
        context = RewardContext(plan.rewards, parts, run.path, max_length, on_long, check)
        earlier = [] if plan.previous is None else [plan.previous.folder]  # the units of the first round's rewards
        earlier += [] if plan.rows.made_by is None else [plan.rows.made_by.folder]
        rewards = prepared_rewards(context, outcome, ranked=ranked, held_out=held_out, also_in=earlier)
        unlabelled = {name: one for name, one in rewards.items() if not plan.rewards[name].labelled}
        if plan.rows.settings.keep != "all":
            ranked = ranked_by_rewards(ranked, unlabelled)
        ranked = kept_rows(ranked, plan.rows, outcome, rewarded=unlabelled)
    if plan.previous is not None:
        outcome.recipe = {"rounds": plan.algorithm.rounds}
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(plan.rows, ranked)}
    return Prepared(base, parts, ranked, held_out, rewards)


def train_and_measure(
    plan: Plan[PreferenceConfig], run: RunFolder, outcome: Outcome, *, sft_weight: float = 0.0, check: bool = True
) -> None:
    """Train on the pairs of one objective, tilted by the rewards of the others, and measure the policy.

    Without other objectives (w_k = 1) this is plain DPO.

    Args:
        plan: the run.
        run: its folder.
        outcome: takes the result.
        sft_weight: weight of the chosen responses' own likelihood in the loss.
        check: whether a reward that contradicts its labels ends the run.
    """
    algorithm, objectives, trainer = plan.algorithm, plan.objectives, plan.recipe.trainer
    prepared = prepare(plan, run, outcome, check=check)
    base, ranked, rewards, cache = prepared.base, prepared.ranked, prepared.rewards, prepared.cache
    outcome.beta, outcome.loss_type = algorithm.beta, algorithm.loss_type
    outcome.recipe |= {"sft_weight": sft_weight} if sft_weight else {}
    trained_on = pairs_by(ranked, objectives.trained)
    on_long = plan.rows.settings.on_long
    pairs = encode_pairs(trained_on, base.encoder, max_length=trainer.max_length, on_long=on_long)
    say_left_out(pairs, outcome, unranked=num_unranked(ranked, objectives.trained))
    with run.stage("reference and rewards"):
        rows = pairs.responses()
        ref_logps_B = reference_logps(base, rows, cache=cache, batch_size=trainer.per_device_eval_batch_size)
        columns = {name: rewards[name].score_encoded(rows) for name in objectives.others}
        record_tilts(outcome, columns, objectives.weights, algorithm.beta)
        if sft_weight:
            outcome.extra["likelihood"] = likelihood_term(pairs, sft_weight, plan.rows.settings.name)
        table = tilted_pairs(pairs, ref_logps_B, columns, objectives.others, algorithm.beta)
        for one in rewards.values():
            one.release()  # training needs the memory
    unit = unit_scales(plan, run).get(objectives.trained, 1.0)  # set if w weighs normalised rewards
    loss = PreferenceLoss(
        algorithm.loss_type,
        beta=algorithm.beta,
        weight=objectives.trained_weight / unit,
        label_smoothing=algorithm.label_smoothing,
        sft_weight=sft_weight,
    )
    policy = finish(plan, run, outcome, prepared, table, loss)
    unseen = encode_what_fits(
        pairs_by(prepared.held_out, objectives.trained), base.encoder, max_length=trainer.max_length, on_long=on_long
    )
    if unseen.pairs:
        rows = unseen.responses()
        columns = {name: rewards[name].score_encoded(rows) for name in objectives.others}
        log_ratios_B = policy.reward.score_encoded(rows).double() / algorithm.beta
        record_learnt_tilt(outcome, log_ratios_B, columns, objectives, algorithm.beta)
        for one in rewards.values():
            one.release()


def unit_scales(plan: Plan[Any], run: RunFolder) -> dict[str, float]:
    """Objective -> divisor of its weight: standard deviation of its reward's differences, where that is normalised."""
    return {name: found.difference_std for name, found in read_statistics(run.path).items() if name in plan.rewards}


def finish(
    plan: Plan[Any],
    run: RunFolder,
    outcome: Outcome,
    prepared: Prepared,
    table: Dataset,
    loss: PreferenceLoss,
    conflict: ConflictAversion | None = None,
) -> Policy:
    """Train the adapter, give it its card, and measure the policy, which is returned.

    Args:
        plan: the run.
        run: its folder.
        outcome: takes the result.
        prepared: its rewards rank the held-out responses of objectives without labels.
        table: the training rows, see `tilted_pairs`.
        loss: what is minimised.
        conflict: how the gradients of several objectives are combined, if they are.
    """
    with run.stage("training"):
        adapter = train_on_processes(plan.recipe, prepared.base, table, loss, run.path, conflict=conflict)
    return card_and_measure(plan, run, outcome, prepared, adapter, loss.beta)


def card_and_measure(
    plan: Plan[Any], run: RunFolder, outcome: Outcome, prepared: Prepared, adapter: Path, beta: float
) -> Policy:
    """Give a trained adapter its card, and measure the policy, which is returned.

    Args:
        plan: the run.
        run: its folder.
        outcome: takes the result.
        prepared: its rewards rank the held-out responses of objectives without labels.
        adapter: its folder.
        beta: KL strength, 1/nat.
    """
    base = prepared.base
    scales = unit_scales(plan, run)
    card = AdapterCard(
        objective=plan.objectives.trained,
        beta=beta,
        base=base.id,
        prompt_template=plan.model.settings.prompt_template,
        dataset=plan.rows.settings.name,
        weights=plan.objectives.weights,
        max_length=plan.recipe.trainer.max_length,
        scales=scales,
        data=outcome.inputs["pairs"],
        algorithm=plan.algorithm.name,
        seed=plan.seed,
        loss_type=outcome.loss_type or "",
        recipe=outcome.recipe,
        rewards={name: one.id for name, one in prepared.rewards.items()},
    )
    save_card(adapter, card)
    outcome.artifacts["adapter"] = adapter.name
    batch_size = plan.recipe.trainer.per_device_eval_batch_size
    policy = Policy(base, adapter, beta, plan.objectives, prepared.cache, batch_size, scales)
    unlabelled = {name: one for name, one in prepared.rewards.items() if not plan.rewards[name].labelled}
    held_out = ranked_by_rewards(prepared.held_out, unlabelled)
    sampling = lambda: Sampling(plan.local_generator, plan.seed)  # noqa: E731
    measure(policy, run, outcome, source=plan.rows, held_out=held_out, sampling=sampling)
    record_cache(outcome, prepared.cache.counts)
    return policy


def likelihood_term(pairs: EncodedPairs, weight: float, dataset: str) -> dict[str, float]:
    """Say what a likelihood term counts, since a data set may recommend one; the same for result.json.

    Args:
        pairs: the training pairs.
        weight: algorithm.sft_weight, > 0.
        dataset: its name.
    """
    starts = [pair.sft_from for pair in pairs.pairs]
    counts = {"whole": starts.count(0), "part": sum(start > 0 for start in starts), "none": starts.count(-1)}
    say(
        f"loss: the preference loss plus {weight:g} times the chosen responses' negative log-likelihood a token "
        f"(algorithm.sft_weight on dataset={dataset}; 0 is plain DPO): the whole response in {counts['whole']} pairs, "
        f"its correction alone in {counts['part']}, nothing in {counts['none']}"
    )
    return {"weight": weight, **{f"pairs_{name}": float(count) for name, count in counts.items()}}


def tilted_pairs(
    pairs: EncodedPairs, ref_logps_B: Tensor, columns: Mapping[str, Tensor], weights: Mapping[str, float], beta: float
) -> Dataset:
    """Tokens, reference log-probabilities and tilts of every pair, and the number of its ranked set.

    The columns are `PreferenceTrainer`'s; those of the tilt are left out where no reward weighs.

    Args:
        pairs: N pairs.
        ref_logps_B: of all chosen, then all rejected responses, so B = 2N.
        columns: rewards of the same responses, each (B,).
        weights: of the objectives that enter as rewards.
        beta: KL strength, 1/nat.
    """
    numbers = {name: number for number, name in enumerate(dict.fromkeys(pair.set for pair in pairs.pairs))}
    ref_chosen, ref_rejected = ref_logps_B.chunk(2)
    table = {
        "id": [pair.id for pair in pairs.pairs],
        "set": [numbers[pair.set] for pair in pairs.pairs],
        "prompt_ids": [pair.chosen.prompt_ids for pair in pairs.pairs],
        "chosen_ids": [pair.chosen.response_ids for pair in pairs.pairs],
        "rejected_ids": [pair.rejected.response_ids for pair in pairs.pairs],
        "sft_from": [pair.sft_from for pair in pairs.pairs],
        "ref_chosen_logps": ref_chosen.tolist(),
        "ref_rejected_logps": ref_rejected.tolist(),
    }
    if weights:
        rewards_BM = torch.stack([columns[name] for name in weights], dim=1)
        weights_M = torch.tensor(list(weights.values()))
        chosen, rejected = reward_tilt(rewards_BM, weights_M=weights_M, beta=beta).chunk(2)
        table |= {"chosen_tilt": chosen.tolist(), "rejected_tilt": rejected.tolist()}
    return Dataset.from_dict(table)


def record_cache(outcome: Outcome, counts: Mapping[str, CacheCount]) -> None:
    """Say how much of the scoring was done before."""
    outcome.extra["cache"] = {name: asdict(count) for name, count in counts.items()}
    shown = [f"{name} {count.computed} computed, {count.reused} reused" for name, count in counts.items()]
    if shown:
        say(f"log-probabilities: {'; '.join(shown)}")


def say_left_out(pairs: EncodedPairs, outcome: Outcome, *, unranked: int) -> None:
    """Say how many pairs are left out or cut, and record it.

    Args:
        pairs: those that are trained on.
        outcome: takes the counts.
        unranked: rows that make no pair.
    """
    outcome.extra["rows"] = {
        "train": len(pairs.pairs),
        "unranked": unranked,
        "too_long": pairs.too_long,
        "cut": pairs.cut,
        "merged": pairs.merged,
    }
    if pairs.merged:
        say(f"{pairs.merged} responses begin inside the prompt's last token; end model.prompt_template at a boundary")
    if pairs.too_long or pairs.cut:
        say(f"trainer.max_length: {pairs.too_long} pairs left out as too long, {pairs.cut} responses cut")
