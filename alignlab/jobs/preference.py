"""What dpo, modpo and reward_model share: rows with a tilted reference, training, measuring."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from alignlab.config.identity import Objectives, input_fingerprints, objectives_of
from alignlab.config.schema import DpoConfig, PreferenceConfig, RunConfig, ToyConfig
from alignlab.data.records import RankedRow, num_unranked, pairs_by
from alignlab.data.worlds import toy
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.scoring.rows import EncodedPairs, encode_pairs
from alignlab.evaluation.measure import measure
from alignlab.io.hashes import text_id
from alignlab.jobs.recipe import recipe_of
from alignlab.models.base import Base
from alignlab.models.cards import AdapterCard, save_card
from alignlab.prerequisites.reference import data_report, ranked_rows, reference
from alignlab.prerequisites.reward_report import prepared_rewards, record_tilts
from alignlab.rewards.implicit import reference_logps
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say
from alignlab.training.launch import train_on_processes
from alignlab.training.losses import PreferenceLoss, reward_tilt


def train_and_measure(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Trains on the pairs of one objective, tilted by the rewards of the others, and measures the policy.

    Without other objectives (w_k = 1) this is plain DPO.
    """
    algorithm = config.algorithm
    assert isinstance(algorithm, PreferenceConfig)
    objectives = objectives_of(config)
    cache = ScoreCache(Path(config.paths.cache) / "scores")
    with run.stage("prerequisites"):
        outcome.extra |= data_report(config)
        base = reference(config)
        ranked = ranked_rows(config, base, config.dataset.split)
        rewards = prepared_rewards(config, outcome, run.path, base=base, ranked=ranked, cache=cache)
    outcome.inputs |= {"model": base.id, "revision": base.revision, **data_inputs(config, ranked)}
    pairs = encode_pairs(
        pairs_by(ranked, objectives.trained),
        base.encoder,
        max_length=config.trainer.max_length,
        on_long=config.dataset.on_long,
    )
    outcome.extra["rows"] = {
        "train": len(pairs.pairs),
        "unranked": num_unranked(ranked, objectives.trained),
        "too_long": pairs.too_long,
        "cut": pairs.cut,
        "merged": pairs.merged,
    }
    if pairs.merged:
        say(f"{pairs.merged} responses begin inside the prompt's last token; end model.prompt_template at a boundary")
    if pairs.too_long or pairs.cut:
        say(f"trainer.max_length: {pairs.too_long} pairs left out as too long, {pairs.cut} responses cut")
    with run.stage("reference and rewards"):
        rows = pairs.responses()
        ref_logps_B = reference_logps(base, rows, cache=cache, batch_size=config.trainer.per_device_eval_batch_size)
        columns = {name: rewards[name].score_encoded(rows) for name in objectives.others}
        record_tilts(outcome, columns, objectives, algorithm.beta)
        sft_weight = algorithm.sft_weight if isinstance(algorithm, DpoConfig) else 0.0
        if sft_weight:
            outcome.extra["likelihood"] = likelihood_term(pairs, sft_weight, config.dataset.name)
        table = training_rows(pairs, ref_logps_B, columns, objectives, algorithm.beta)
        for one in rewards.values():
            one.release()  # training needs the memory
    loss = PreferenceLoss(
        algorithm.loss_type,
        beta=algorithm.beta,
        weight=objectives.weights[objectives.trained],
        label_smoothing=algorithm.label_smoothing,
        sft_weight=sft_weight,
    )
    with run.stage("training"):
        adapter = train_on_processes(recipe_of(config), base, table, loss, run.path)
    save_card(adapter, card(config, base, objectives, data=outcome.inputs["pairs"]))
    outcome.artifacts["adapter"] = adapter.name
    measure(config, run, outcome, base=base, adapter=adapter, beta=algorithm.beta, objectives=objectives, cache=cache)
    finish(outcome, cache, algorithm)


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


def training_rows(
    pairs: EncodedPairs, ref_logps_B: Tensor, columns: Mapping[str, Tensor], objectives: Objectives, beta: float
) -> Dataset:
    """Tokens, reference log-probabilities and tilts of every pair, and the number of its ranked set.

    The columns are `PreferenceTrainer`'s; those of the tilt are left out where no other objective weighs.

    Args:
        pairs: N pairs.
        ref_logps_B: of all chosen, then all rejected responses, so B = 2N.
        columns: the other objectives' rewards of the same responses, each (B,).
        objectives: the weights.
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
    if objectives.others:
        rewards_BM = torch.stack([columns[name] for name in objectives.others], dim=1)
        weights_M = torch.tensor(list(objectives.others.values()))
        chosen, rejected = reward_tilt(rewards_BM, weights_M=weights_M, beta=beta).chunk(2)
        table |= {"chosen_tilt": chosen.tolist(), "rejected_tilt": rejected.tolist()}
    return Dataset.from_dict(table)


def card(config: RunConfig, base: Base, objectives: Objectives, *, data: str) -> AdapterCard:
    """What travels with the adapter; `data` is the hash of the rows that it was trained on."""
    assert isinstance(config.algorithm, PreferenceConfig)
    return AdapterCard(
        objective=objectives.trained,
        beta=config.algorithm.beta,
        base=base.id,
        prompt_template=config.model.prompt_template,
        dataset=config.dataset.name,
        weights=objectives.weights,
        max_length=config.trainer.max_length,
        data=data,
    )


def finish(outcome: Outcome, cache: ScoreCache, algorithm: PreferenceConfig) -> None:
    """Says how much of the scoring was done before."""
    outcome.extra["cache"] = {name: asdict(count) for name, count in cache.counts.items()}
    outcome.extra |= {"beta": algorithm.beta, "loss_type": algorithm.loss_type}
    counts = [f"{name} {count.computed} computed, {count.reused} reused" for name, count in cache.counts.items()]
    if counts:
        say(f"log-probabilities: {'; '.join(counts)}")


def data_inputs(config: RunConfig, rows: Sequence[RankedRow]) -> dict[str, str]:
    """`dataset`: what is evaluated on, the same for all seeds; `pairs`: what is trained on."""
    pairs = text_id(*(f"{row.id} {row.scores}" for row in rows))
    if isinstance(config.dataset, ToyConfig):
        return {"dataset": f"toy world {toy.WORLD_VERSION}", "pairs": pairs}
    return {
        "dataset": input_fingerprints(config).get("dataset.path", str(getattr(config.dataset, "hub", ""))),
        "pairs": pairs,
    }
