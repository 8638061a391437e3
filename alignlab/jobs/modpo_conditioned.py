"""One training for the whole front: an adapter that is a function of w (docs/conditioned.md)."""

from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from datasets import Dataset
from torch import Tensor

from alignlab.config.plan import Plan
from alignlab.config.schema import ConditionedConfig
from alignlab.config.weights import resolve_weights
from alignlab.data.records import Pair, RankedRow, all_pairs, pairs_by
from alignlab.engine.scoring.rows import EncodedPairs
from alignlab.errors import ConfigError
from alignlab.front.points import write_points
from alignlab.jobs.export import export
from alignlab.jobs.front import present
from alignlab.jobs.preference import Prepared, prepare, record_cache, say_left_out, training_table
from alignlab.models.cards import AdapterCard, read_card, save_card
from alignlab.models.saved_adapter import conditioned_card
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.runs.runner import make_run
from alignlab.training.conditioned import Condition
from alignlab.training.launch import train_on_processes
from alignlab.training.losses import PreferenceLoss


def run(plan: Plan[ConditionedConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train the adapter. `after_run` exports and measures it at every w that is asked for.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, names = plan.algorithm, tuple(plan.objectives.weights)
    prepared = prepare(plan, run, outcome, check=algorithm.check_rewards)
    outcome.objectives = None  # of every w
    outcome.beta, outcome.loss_type = algorithm.beta, algorithm.loss
    outcome.recipe = {"normalised": True} if algorithm.normalise else {}
    every = all_pairs(prepared.ranked)
    labels = labels_of(prepared.ranked, every, names) if algorithm.ranks_by_labels else {}
    kept = [pair for pair in every if not algorithm.ranks_by_labels or pair.id in labels]
    if not kept:
        raise ConfigError(
            f"algorithm.loss={algorithm.loss}: no pair is ranked by all of {', '.join(names)}; use squared"
        )
    pairs = prepared.encode(kept)
    say_left_out(pairs, outcome, unranked=len(every) - len(kept))
    with run.stage("reference and rewards"):
        table = _table(prepared, pairs, names, labels)
        prepared.release_rewards()
    condition = Condition(
        names, plan.recipe.peft.r, algorithm.shared_rank, algorithm.draws, algorithm.concentration, plan.seed
    )
    loss = PreferenceLoss(algorithm.loss, beta=algorithm.beta, threshold=algorithm.threshold)
    with run.stage("training"):
        adapter = train_on_processes(plan.recipe, prepared.base, table, loss, run.path, condition)
        save_card(adapter, _card(prepared, algorithm, condition, outcome))
    outcome.artifacts["conditioned"] = adapter.name
    record_cache(outcome, prepared.cache.counts)


def labels_of(ranked: Sequence[RankedRow], pairs: Sequence[Pair], names: Sequence[str]) -> dict[str, list[int]]:
    """Pair id -> 1 or -1 for each objective: whether it ranks the chosen response higher. Only pairs that all rank.

    Args:
        ranked: the rows.
        pairs: any two responses of these.
        names: the objectives.
    """
    better = [{pair.id: pair.chosen for pair in pairs_by(ranked, name)} for name in names]
    ranked_by_all = [pair for pair in pairs if all(pair.id in chosen for chosen in better)]
    return {pair.id: [1 if chosen[pair.id] == pair.chosen else -1 for chosen in better] for pair in ranked_by_all}


def _table(prepared: Prepared, pairs: EncodedPairs, names: Sequence[str], labels: Mapping[str, list[int]]) -> Dataset:
    """ConditionedTrainer's columns.

    Args:
        prepared: base model, cache and every objective's reward.
        pairs: the training pairs.
        names: the objectives.
        labels: see `labels_of`; empty where the loss takes none.
    """
    rows = pairs.responses()
    ref_logps_B = prepared.reference_logps(rows)
    rewards: list[Tensor] = [prepared.rewards[name].score_encoded(rows).double() for name in names]
    chosen_NM, rejected_NM = torch.stack(rewards, dim=1).chunk(2)
    table = training_table(pairs, ref_logps_B)
    table = table.add_column("chosen_rewards", chosen_NM.tolist())
    table = table.add_column("rejected_rewards", rejected_NM.tolist())
    return table.add_column("labels", [labels[pair.id] for pair in pairs.pairs]) if labels else table


def _card(prepared: Prepared, algorithm: ConditionedConfig, condition: Condition, outcome: Outcome) -> AdapterCard:
    recipe = prepared.recipe
    return AdapterCard(
        objective="",
        beta=algorithm.beta,
        base=prepared.base.id,
        prompt_template=recipe.model.prompt_template,
        dataset=prepared.source.settings.name,
        weights={},
        max_length=recipe.trainer.max_length,
        scales=prepared.scales,
        data=outcome.inputs["pairs"],
        algorithm=algorithm.name,
        seed=recipe.seed,
        loss_type=algorithm.loss,
        recipe=outcome.recipe,
        conditioned=True,
        ranks=dict.fromkeys(condition.objectives, condition.rank),
        shared_rank=condition.shared_rank,
        rewards={name: one.id for name, one in prepared.rewards.items()},
    )


def after_run(plan: Plan[ConditionedConfig], folder: Path) -> None:
    """Export the adapter at every w that is asked for, evaluate each, and draw their front beside the run."""
    source = folder / "adapter"
    card = conditioned_card("adapter", source)
    evaluations = []
    for weights in point_weights(plan):
        target = folder / "points" / f"w={'_'.join(f'{weight:.10g}' for weight in _shown(weights))}" / "adapter"
        if read_card(target) is None:
            export(source, card, weights, target)
        evaluations.append(make_run(plan.evaluation(target)))
    write_points(folder, evaluations)
    if len(evaluations) > 1:
        reference = [plan.evaluation(None).folder] if plan.scorers else []
        points = [*evaluations, *reference]
        present(plan.model, plan.rows, points, folder / "front", root=plan.runs, targets=plan.target)
    else:
        say(f"one adapter for every w: algorithm=export algorithm.adapter={source} w=0.5 writes it at one")


def point_weights(plan: Plan[ConditionedConfig]) -> list[dict[str, float]]:
    """The weights of every point of algorithm.export_at."""
    names = list(plan.objectives.weights)
    asked = plan.algorithm.export_at
    return [resolve_weights(w, objectives=names, trained=names[0], scheme="convex") for w in asked]


def _shown(weights: Mapping[str, float]) -> list[float]:
    values = list(weights.values())
    return values[:1] if len(values) == 2 else values
