"""REBEL: the policy learns the weighted reward differences of any two responses (arXiv 2404.16767)."""

import itertools
from collections.abc import Mapping
from dataclasses import replace

import torch
from torch import Tensor

from alignlab.config.plan import Plan
from alignlab.config.schema import RebelConfig
from alignlab.data.records import all_pairs
from alignlab.engine.scoring.rows import EncodedPairs
from alignlab.jobs.preference import prepare, say_left_out, tilt_of, train_from_table, training_table
from alignlab.prerequisites.reward_report import record_tilts
from alignlab.rewards.normalise import read_statistics
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.training.losses import PreferenceLoss

OPPOSITE = -0.999
"""Correlation of two rewards' differences from which they are called opposites."""
FAR = 10.0
"""Nats between reference and optimum at equal weights from which beta is called small."""


def run(plan: Plan[RebelConfig], run: RunFolder, outcome: Outcome) -> None:
    """Train and measure. Rows, references and scores are the same for every w.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, objectives = plan.algorithm, plan.objectives
    prepared = prepare(plan, run, outcome, check=algorithm.check_rewards)
    outcome.beta, outcome.loss_type = algorithm.beta, algorithm.loss
    outcome.recipe |= {"normalised": True} if algorithm.normalise else {}
    pairs = prepared.encode(all_pairs(prepared.ranked))
    say_left_out(pairs, outcome, unranked=0)
    with run.stage("reference and rewards"):
        rows = pairs.responses()
        ref_logps_B, columns = prepared.reference_logps(rows), prepared.scores_of_others(rows)
        record_tilts(outcome, columns, objectives.weights, algorithm.beta)
        prepared.release_rewards()
    _say_normalised(run)
    _say_opposites(columns)
    total_B = weighted_sum(columns, objectives.others)
    equal_B = weighted_sum(columns, None) if len(columns) == len(objectives.weights) else None
    outcome.extra["optimum_nats"] = _say_distance(total_B, equal_B, algorithm.beta)
    pairs, order_B = higher_first(pairs, total_B)
    columns = {name: scores[order_B] for name, scores in columns.items()}
    table = training_table(pairs, ref_logps_B[order_B], tilt_of(columns, objectives.others, algorithm.beta))
    loss = PreferenceLoss(algorithm.loss, beta=algorithm.beta, threshold=algorithm.threshold)
    train_from_table(prepared, table, loss, run, outcome)


def higher_first(pairs: EncodedPairs, scores_B: Tensor) -> tuple[EncodedPairs, Tensor]:
    """The pairs with the response of the higher score as the chosen one, and the responses' new order.

    The loss is the same either way; training's metrics then say how often the policy ranks as the rewards do.

    Args:
        pairs: N pairs.
        scores_B: of all chosen, then all rejected responses, so B = 2N.
    """
    chosen_N, rejected_N = scores_B.chunk(2)
    turned_N = chosen_N < rejected_N
    index_N, number = torch.arange(len(turned_N)), len(turned_N)
    first_N = torch.where(turned_N, index_N + number, index_N)
    turned = [
        replace(pair, chosen=pair.rejected, rejected=pair.chosen) if turn else pair
        for pair, turn in zip(pairs.pairs, turned_N.tolist(), strict=True)
    ]
    return replace(pairs, pairs=turned), torch.cat([first_N, (first_N + number) % (2 * number)])


def _say_normalised(run: RunFolder) -> None:
    shown = [f"{name} by {found.difference_std:.3g}" for name, found in read_statistics(run.path).items()]
    if shown:
        what = "the deviation of its differences between two training responses to one prompt"
        say(f"rewards are divided, {', '.join(shown)}: {what}; algorithm.normalise=false keeps their own units")


def _say_opposites(columns: Mapping[str, Tensor]) -> None:
    """Warn of two rewards that leave nothing to weigh."""
    gaps = {name: torch.sub(*scores_B.double().chunk(2)) for name, scores_B in columns.items()}
    for first, second in itertools.combinations(gaps, 2):
        norm = gaps[first].norm() * gaps[second].norm()
        if norm > 0 and float(gaps[first] @ gaps[second] / norm) <= OPPOSITE:
            say(
                f"warning: {first} and {second} are exact opposites on these pairs: the front is a straight line "
                "through the reference, and w says only how far along it"
            )


def weighted_sum(columns: Mapping[str, Tensor], weights: Mapping[str, float] | None) -> Tensor:
    """Weighted sum of the rewards of B responses, (B,), float64.

    Args:
        columns: each objective's rewards, (B,).
        weights: of the objectives; None for equal ones that sum to one.
    """
    chosen = dict.fromkeys(columns, 1 / len(columns)) if weights is None else weights
    return torch.stack([weight * columns[name].double() for name, weight in chosen.items()]).sum(dim=0)


def optimum_nats(total_B: Tensor, beta: float) -> float:
    """Estimated KL of pi_ref exp(w.r/beta) to the reference, nats: variance / (2 beta^2), the first term of its series.

    Args:
        total_B: weighted rewards of all chosen, then all rejected responses.
        beta: KL strength.
    """
    chosen_N, rejected_N = total_B.chunk(2)
    return float((chosen_N - rejected_N).square().mean()) / 2 / (2 * beta**2)


def _say_distance(total_B: Tensor, equal_B: Tensor | None, beta: float) -> float:
    """Say how far the optimum lies, and warn where it is far at equal weights too.

    A single objective's optimum may well be far where objectives conflict: mixtures of them are nearer.

    Args:
        total_B: rewards by the run's weights, of all chosen, then all rejected responses.
        equal_B: the same by equal weights; None at an end of w, where not every objective was scored.
        beta: KL strength.
    """
    nats = optimum_nats(total_B, beta)
    told = f"algorithm.beta={beta:g}: the optimum lies some {nats:.2g} nats from the reference at these weights"
    if equal_B is None:
        say(told)
        return nats
    at_equal = optimum_nats(equal_B, beta)
    told = f"{told}, {at_equal:.2g} at equal ones"
    say(f"warning: {told}, which is far; raise it" if at_equal > FAR else told)
    return nats
