"""DPO with weighted losses: all objectives' own pairs in one training, each mean loss times the objective's weight."""

from collections.abc import Mapping
from dataclasses import dataclass

from datasets import Dataset

from alignlab.config.plan import Plan
from alignlab.config.schema import LossWeightedConfig
from alignlab.data.records import num_unranked, pairs_by
from alignlab.engine.scoring.rows import EncodedPairs
from alignlab.jobs.preference import Prepared, prepare, say_left_out, train_from_table, training_table
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.training.losses import PreferenceLoss


def run(plan: Plan[LossWeightedConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm = plan.algorithm
    own = pairs_of_objectives(prepare(plan, run, outcome, check=False), algorithm, run, outcome)
    table = own.table.add_column("pair_weight", pair_weights(own.counts, plan.objectives.others))
    loss = PreferenceLoss(algorithm.loss_type, beta=algorithm.beta, label_smoothing=algorithm.label_smoothing)
    train_from_table(own.prepared, table, loss, run, outcome)


@dataclass(frozen=True)
class ObjectivePairs:
    """The pairs of every objective that weighs something, one objective after the other."""

    prepared: Prepared
    table: Dataset
    """PreferenceTrainer's columns, untilted. Pairs of one row are of one set, whichever objective ranks them."""
    counts: dict[str, int]
    """Objective -> its pairs."""


def pairs_of_objectives(
    prepared: Prepared, algorithm: LossWeightedConfig, run: RunFolder, outcome: Outcome
) -> ObjectivePairs:
    """Each objective's own pairs with their reference log-probabilities; says how many there are.

    Args:
        prepared: base model and rows.
        algorithm: beta and the loss.
        run: times the stages.
        outcome: takes the counts.
    """
    weights, ranked = prepared.objectives.others, prepared.ranked
    outcome.beta, outcome.loss_type = algorithm.beta, algorithm.loss_type
    by_objective = {name: prepared.encode(pairs_by(ranked, name)) for name in weights}
    pairs = _together(by_objective)
    say_left_out(pairs, outcome, unranked=sum(num_unranked(ranked, name) for name in weights))
    counts = {name: len(found.pairs) for name, found in by_objective.items()}
    outcome.extra["rows"]["by_objective"] = counts
    say("pairs: " + ", ".join(f"{count} of {name} at weight {weights[name]:g}" for name, count in counts.items()))
    with run.stage("reference"):
        ref_logps_B = prepared.reference_logps(pairs.responses())
    table = training_table(pairs, ref_logps_B)
    return ObjectivePairs(prepared, table, counts)


def pair_weights(counts: Mapping[str, int], weights: Mapping[str, float]) -> list[float]:
    """The weight of every pair, objective by objective, by which the mean over all pairs is sum_i w_i * mean_i.

    Args:
        counts: pairs of each objective.
        weights: of the same objectives.
    """
    total = sum(counts.values())
    return [weights[name] * total / count for name, count in counts.items() for _ in range(count)]


def _together(parts: Mapping[str, EncodedPairs]) -> EncodedPairs:
    found = list(parts.values())
    return EncodedPairs(
        [pair for one in found for pair in one.pairs],
        too_long=sum(one.too_long for one in found),
        cut=sum(one.cut for one in found),
        merged=max(one.merged for one in found),
    )
