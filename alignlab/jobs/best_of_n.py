"""Best-of-n: the reference's sample with the highest weighted reward among n; nothing is trained."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignlab.config.plan import Plan
from alignlab.config.schema import BestOfNConfig
from alignlab.errors import ConfigError
from alignlab.evaluation.weighted import (
    Floats,
    PromptSamples,
    WeightedPrompt,
    difference_std,
    reward_matrix,
    write_chosen,
)
from alignlab.front.preview import KL_ESTIMATOR, chosen_of_n
from alignlab.jobs.weighing import measure_weighted, reference_prompts
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome

Indices = NDArray[np.intp]


def run(plan: Plan[BestOfNConfig], run: RunFolder, outcome: Outcome) -> None:
    """Weigh each sample of the reference by how often it is the best of n, over all choices of n.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm = plan.algorithm
    prompts, like = reference_prompts(plan, run, outcome, samples=algorithm.samples)
    rewards = [reward_matrix(one, outcome.axes) for one in prompts]
    scales_M = _scales(list(outcome.axes), rewards) if algorithm.normalise else np.ones(len(outcome.axes))
    weights_M = np.array([plan.objectives.weights[name] for name in outcome.axes]) / scales_M
    weighted, picks = [], []
    for samples, rewards_SM in zip(prompts, rewards, strict=True):
        known = np.flatnonzero(np.isfinite(rewards_SM).all(axis=1))
        if len(known) < algorithm.n:
            continue
        scores_S = rewards_SM[known] @ weights_M
        weighted.append(_best(samples, known, scores_S, algorithm.n))
        picks += [(samples, int(index)) for index in _picks(known, scores_S, algorithm.n)]
    unscored = sum(int((~np.isfinite(rewards_SM)).any(axis=1).sum()) for rewards_SM in rewards)
    if not weighted:
        raise ConfigError(
            f"algorithm.n={algorithm.n}: no prompt has as many samples with a score by every objective ({unscored} "
            "samples lack one); score them, or take a smaller n"
        )
    _say_left_out(outcome, unscored, len(prompts) - len(weighted), algorithm.n)
    write_chosen(run.path, picks)
    outcome.recipe = {"n": algorithm.n} | ({"normalised": True} if algorithm.normalise else {})
    outcome.extra["kl_estimator"] = KL_ESTIMATOR
    weights = dict(zip(outcome.axes, weights_M.tolist(), strict=True))
    measure_weighted(plan, run, outcome, weighted, like=like, weights=weights, beta=algorithm.beta)


def _scales(names: Sequence[str], rewards: Sequence[Floats]) -> Floats:
    """What each reward is divided by before it is weighed, (M,)."""
    scales_M = difference_std(rewards)
    for name, scale in zip(names, scales_M.tolist(), strict=True):
        if not scale > 0:
            raise ConfigError(f"algorithm.normalise=true: no prompt has two samples that {name} scores differently")
    shown = ", ".join(f"{name} by {scale:.3g}" for name, scale in zip(names, scales_M.tolist(), strict=True))
    say(f"rewards are divided, {shown}: the deviation of their differences between two samples of one prompt")
    return scales_M


def _best(samples: PromptSamples, known: Indices, scores_S: Floats, n: int) -> WeightedPrompt:
    """One prompt's best of n among its samples with known scores."""
    chosen = chosen_of_n(scores_S, n)
    probability_S = np.zeros(len(samples.rows))
    probability_S[known] = chosen.probability_S
    return WeightedPrompt(samples, probability_S, chosen.kl)


def _picks(known: Indices, scores_S: Floats, n: int) -> Indices:
    """Indices of the best of each n samples in turn: what the policy says, for the page."""
    whole = len(known) // n * n
    best = scores_S[:whole].reshape(-1, n).argmax(axis=1)
    picked: Indices = known[:whole].reshape(-1, n)[np.arange(len(best)), best]
    return picked


def _say_left_out(outcome: Outcome, unscored: int, prompts: int, n: int) -> None:
    outcome.extra["left_out"] = {"unscored_samples": unscored, "prompts": prompts}
    if unscored:
        say(f"{unscored} samples without a score by every objective are left out, and {prompts} prompts of under {n}")
