"""What the trainings on preference pairs share: preparing, the table of training rows, training, measuring."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset
from torch import Tensor

from alignlab.config.objectives import Objectives
from alignlab.config.parts import RowSource, Sampling
from alignlab.config.plan import Plan
from alignlab.config.recipe import TrainingRecipe
from alignlab.config.schema import PreferenceConfig
from alignlab.data.records import Pair, RankedRow, num_unranked, pairs_by
from alignlab.engine.cache.scores import CacheCount, ScoreCache, shared_scores
from alignlab.engine.scoring.rows import EncodedPairs, encode_pairs, encode_what_fits
from alignlab.evaluation.measure import Policy, measure, ranked_by_rewards
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard, save_card
from alignlab.models.prompts import Encoded
from alignlab.prerequisites.reward_report import RewardContext, prepared_rewards, record_learnt_tilt, record_tilts
from alignlab.prerequisites.rewards import RewardParts
from alignlab.prerequisites.rows import kept_rows, model_and_rows, record_inputs
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
    """What a training on preferences starts from: base model, rows and rewards, loaded, and what all stages read."""

    algorithm: str
    """Name of the algorithm."""
    parts: RewardParts
    source: RowSource
    """Where the rows come from."""
    ranked: list[RankedRow]
    held_out: list[RankedRow]
    rewards: dict[str, Reward]
    unlabelled: dict[str, Reward]
    """Those of objectives without labels."""
    scales: dict[str, float]
    """Objective -> divisor of its weight: standard deviation of its reward's differences, where that is normalised."""
    objectives: Objectives
    recipe: TrainingRecipe
    sampling: Callable[[], Sampling]
    """How the policy is sampled; refused where the configuration names a server."""

    @property
    def base(self) -> Base:
        """The reference."""
        return self.parts.base

    @property
    def cache(self) -> ScoreCache:
        """Scores that runs share."""
        return self.parts.cache

    def encode(self, pairs: Sequence[Pair]) -> EncodedPairs:
        """The pairs as tokens, within trainer.max_length.

        Raises:
            ConfigError: if none fits.
        """
        return encode_pairs(pairs, self.base.encoder, max_length=self._max_length, on_long=self.source.settings.on_long)

    def encode_what_fits(self, pairs: Sequence[Pair]) -> EncodedPairs:
        """The pairs as tokens, within trainer.max_length; no pair where none fits."""
        limit, on_long = self._max_length, self.source.settings.on_long
        return encode_what_fits(pairs, self.base.encoder, max_length=limit, on_long=on_long)

    def reference_logps(self, rows: Sequence[Encoded]) -> Tensor:
        """Log-probabilities of responses under the reference, (B,), nats."""
        batch_size = self.recipe.trainer.per_device_eval_batch_size
        return reference_logps(self.base, rows, cache=self.cache, batch_size=batch_size)

    def scores_of_others(self, rows: Sequence[Encoded]) -> dict[str, Tensor]:
        """Rewards of responses, each (B,), by every objective that enters as a reward."""
        return {name: self.rewards[name].score_encoded(rows) for name in self.objectives.others}

    def release_rewards(self) -> None:
        """Free the rewards' memory, which training needs; one that is asked again loads again."""
        for one in self.rewards.values():
            one.release()

    def policy(self, adapter: Path, beta: float, scales: Mapping[str, float]) -> Policy:
        """The base with an adapter, at this run's weights.

        Args:
            adapter: its folder.
            beta: KL strength that it was trained with, 1/nat.
            scales: divisors of the weights that it was trained with.
        """
        batch_size = self.recipe.trainer.per_device_eval_batch_size
        return Policy(self.base, adapter, beta, self.objectives, self.cache, batch_size, scales)

    @property
    def _max_length(self) -> int:
        return self.recipe.trainer.max_length


def prepare(plan: Plan[Any], run: RunFolder, outcome: Outcome, *, check: bool) -> Prepared:
    """Load or make the base model, the rows and the other objectives' rewards, and record them.

    Args:
        plan: the run.
        run: its folder.
        outcome: takes inputs and reports.
        check: whether a reward that contradicts its labels ends the run.
    """
    with run.stage("prerequisites"):
        loaded = model_and_rows(plan.model, plan.rows, outcome)
        base, ranked, held_out = loaded.base, loaded.ranked, loaded.held_out
        parts = RewardParts(base, shared_scores(plan.cache), run.make_run)
        max_length, on_long = plan.recipe.trainer.max_length, plan.rows.settings.on_long
        context = RewardContext(plan.rewards, parts, run.path, max_length, on_long, check)
        earlier = [] if plan.previous is None else [plan.previous.folder]  # its rewards' units stay
        earlier += [] if plan.rows.made_by is None else [plan.rows.made_by.folder]
        rewards = prepared_rewards(context, outcome, ranked=ranked, held_out=held_out, also_in=earlier)
        unlabelled = {name: one for name, one in rewards.items() if not plan.rewards[name].labelled}
        if plan.rows.settings.keep != "all":
            ranked = ranked_by_rewards(ranked, unlabelled)
        ranked = kept_rows(ranked, plan.rows, outcome, rewarded=unlabelled)
    if plan.previous is not None:
        outcome.recipe = {"rounds": plan.algorithm.rounds}
    record_inputs(outcome, base, plan.rows, ranked)
    return Prepared(
        algorithm=plan.algorithm.name,
        parts=parts,
        source=plan.rows,
        ranked=ranked,
        held_out=held_out,
        rewards=rewards,
        unlabelled=unlabelled,
        scales={name: one.difference_std for name, one in read_statistics(run.path).items() if name in rewards},
        objectives=plan.objectives,
        recipe=plan.recipe,
        sampling=plan.sampling,
    )


def train_and_measure(
    prepared: Prepared,
    algorithm: PreferenceConfig,
    run: RunFolder,
    outcome: Outcome,
    *,
    sft_weight: float = 0.0,
) -> None:
    """Train on the pairs of one objective, against a reference that the others' rewards tilt; measure the policy.

    Where no other objective weighs anything this is plain DPO.

    Args:
        prepared: base model, rows and rewards.
        algorithm: beta and the loss.
        run: keeps the adapter.
        outcome: takes the result.
        sft_weight: weight of the chosen responses' own likelihood in the loss.
    """
    beta = algorithm.beta
    objectives, ranked = prepared.objectives, prepared.ranked
    outcome.beta, outcome.loss_type = beta, algorithm.loss_type
    outcome.recipe |= {"sft_weight": sft_weight} if sft_weight else {}
    pairs = prepared.encode(pairs_by(ranked, objectives.trained))
    say_left_out(pairs, outcome, unranked=num_unranked(ranked, objectives.trained))
    with run.stage("reference and rewards"):
        rows = pairs.responses()
        ref_logps_B, columns = prepared.reference_logps(rows), prepared.scores_of_others(rows)
        record_tilts(outcome, columns, objectives.weights, beta)
        if sft_weight:
            outcome.extra["likelihood"] = report_likelihood_term(pairs, sft_weight, prepared.source.settings.name)
        table = training_table(pairs, ref_logps_B, tilt_of(columns, objectives.others, beta))
        prepared.release_rewards()
    unit = prepared.scales.get(objectives.trained, 1.0)  # set if w weighs normalised rewards
    loss = PreferenceLoss(
        algorithm.loss_type,
        beta=beta,
        weight=objectives.trained_weight / unit,
        label_smoothing=algorithm.label_smoothing,
        sft_weight=sft_weight,
    )
    policy = train_from_table(prepared, table, loss, run, outcome)
    unseen = prepared.encode_what_fits(pairs_by(prepared.held_out, objectives.trained))
    if unseen.pairs:
        rows = unseen.responses()
        columns = prepared.scores_of_others(rows)
        log_ratios_B = policy.reward.score_encoded(rows).double() / beta
        record_learnt_tilt(outcome, log_ratios_B, columns, objectives, beta)
        prepared.release_rewards()


def train_from_table(
    prepared: Prepared,
    table: Dataset,
    loss: PreferenceLoss,
    run: RunFolder,
    outcome: Outcome,
    conflict: ConflictAversion | None = None,
) -> Policy:
    """Train the adapter, give it its card, and measure the policy, which is returned.

    Args:
        prepared: its rewards rank the held-out responses of objectives without labels.
        table: the training rows, see `training_table`.
        loss: what is minimised.
        run: keeps the adapter.
        outcome: takes the result.
        conflict: how the gradients of several objectives are combined, if they are.
    """
    with run.stage("training"):
        adapter = train_on_processes(prepared.recipe, prepared.base, table, loss, run.path, conflict=conflict)
    return card_and_measure(prepared, adapter, loss.beta, run, outcome)


def card_and_measure(prepared: Prepared, adapter: Path, beta: float, run: RunFolder, outcome: Outcome) -> Policy:
    """Give a trained adapter its card, and measure the policy, which is returned.

    Args:
        prepared: its rewards rank the held-out responses of objectives without labels.
        adapter: its folder.
        beta: KL strength, 1/nat.
        run: times the stages and keeps the records.
        outcome: takes the result.
    """
    recipe = prepared.recipe
    card = AdapterCard(
        objective=prepared.objectives.trained,
        beta=beta,
        base=prepared.base.id,
        prompt_template=recipe.model.prompt_template,
        dataset=prepared.source.settings.name,
        weights=prepared.objectives.weights,
        max_length=recipe.trainer.max_length,
        scales=prepared.scales,
        data=outcome.inputs["pairs"],
        algorithm=prepared.algorithm,
        seed=recipe.seed,
        loss_type=outcome.loss_type or "",
        recipe=outcome.recipe,
        rewards={objective: one.id for objective, one in prepared.rewards.items()},
    )
    save_card(adapter, card)
    held_out = ranked_by_rewards(prepared.held_out, prepared.unlabelled)
    policy = prepared.policy(adapter, beta, prepared.scales)
    measure_policy(prepared, policy, held_out, run, outcome)
    return policy


def measure_policy(
    prepared: Prepared, policy: Policy, held_out: Sequence[RankedRow], run: RunFolder, outcome: Outcome
) -> None:
    """Measure a policy whose adapter lies in the run's folder.

    Args:
        prepared: the data, and how it is sampled.
        policy: with an adapter.
        held_out: rows of the test split.
        run: times the stages and keeps the records.
        outcome: takes the metrics.
    """
    assert policy.adapter is not None
    outcome.artifacts["adapter"] = policy.adapter.name
    measure(policy, run, outcome, source=prepared.source, held_out=held_out, sampling=prepared.sampling)
    record_cache(outcome, prepared.cache.counts)


def report_likelihood_term(pairs: EncodedPairs, weight: float, dataset: str) -> dict[str, float]:
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


def training_table(pairs: EncodedPairs, ref_logps_B: Tensor, tilt_B: Tensor | None = None) -> Dataset:
    """Tokens, reference log-probabilities and tilts of every pair, and the number of its ranked set.

    The columns are `PreferenceTrainer`'s; those of the tilt are left out where there is none.

    Args:
        pairs: N pairs.
        ref_logps_B: of all chosen, then all rejected responses, so B = 2N.
        tilt_B: what is added to them, nats.
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
    if tilt_B is not None:
        chosen, rejected = tilt_B.chunk(2)
        table |= {"chosen_tilt": chosen.tolist(), "rejected_tilt": rejected.tolist()}
    return Dataset.from_dict(table)


def tilt_of(rewards: Mapping[str, Tensor], weights: Mapping[str, float], beta: float) -> Tensor | None:
    """What the rewards add to the reference's log-probabilities, (B,), nats; None where none weighs anything.

    Args:
        rewards: of responses, each (B,).
        weights: of the objectives that enter as rewards.
        beta: KL strength, 1/nat.
    """
    if not weights:
        return None
    rewards_BM = torch.stack([rewards[name] for name in weights], dim=1)
    return reward_tilt(rewards_BM, weights_M=torch.tensor(list(weights.values())), beta=beta)


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
