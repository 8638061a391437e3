"""What scores must be before pairs are made of them, and what a user should know of them.

Shape letters: N answers, M objectives.
"""

from collections.abc import Sequence
from itertools import combinations

import numpy as np
from numpy.typing import NDArray

from alignlab.errors import ConfigError
from alignlab.pairs.select import centred_within, spread_within
from alignlab.runs.progress import say

Floats = NDArray[np.float64]
OPPOSITE = -0.999
"""Correlation, within prompts, from which on two scorers are said to be opposites."""


def check_scores(scores_NM: Floats, objectives: Sequence[str], answers: Sequence[str], prompts: Sequence[str]) -> None:
    """Refuse scores that rank nothing.

    Args:
        scores_NM: NaN where a scorer gave none.
        objectives: names of the M scorers.
        answers: ids of the answers.
        prompts: the prompt of each answer.

    Raises:
        ConfigError: `scorers.NAME: ...` where a score is infinite, all are unknown, or all are equal, over all answers
            or among the answers of each prompt.
    """
    for m, name in enumerate(objectives):
        scores_N = scores_NM[:, m]
        infinite = np.flatnonzero(np.isinf(scores_N))
        if len(infinite):
            raise ConfigError(f"scorers.{name}: the score of answer {answers[infinite[0]]} is {scores_N[infinite[0]]}")
        known = scores_N[~np.isnan(scores_N)]
        if not len(known):
            raise ConfigError(f"scorers.{name}: scored none of {len(scores_N)} answers")
        if known.min() == known.max():
            raise ConfigError(f"scorers.{name}: scores all {len(known)} answers {known[0]:g}, so it ranks nothing")
        if spread_within(scores_NM[:, [m]], prompts)[0] == 0:
            raise ConfigError(f"scorers.{name}: scores the answers of each prompt alike, so it ranks none of them")
        _say_alike(name, scores_N, prompts)


def _say_alike(name: str, scores_N: Floats, prompts: Sequence[str]) -> None:
    """How many prompts a scorer says nothing of."""
    by_prompt: dict[str, set[float]] = {}
    for prompt, score in zip(prompts, scores_N.tolist(), strict=True):
        by_prompt.setdefault(prompt, set()).add(score)
    alike = sum(len(scores) == 1 for scores in by_prompt.values())
    if alike:
        say(f"scorers.{name}: scores all answers alike on {alike} of {len(by_prompt)} prompts, and ranks none of them")
    unknown = int(np.isnan(scores_N).sum())
    if unknown:
        say(f"scorers.{name}: gave {unknown} of {len(scores_N)} answers no score")


def correlations(scores_NM: Floats, objectives: Sequence[str], prompts: Sequence[str]) -> dict[str, float]:
    """Correlation of each two objectives' scores within prompts, by `ONE, OTHER`; opposites are warned of.

    Args:
        scores_NM: NaN where a scorer gave none.
        objectives: names of the M scorers.
        prompts: the prompt of each answer.
    """
    found = {}
    for one, other in combinations(range(len(objectives)), 2):
        value = within_correlation(scores_NM[:, one], scores_NM[:, other], prompts)
        if value is None:
            continue
        names = f"{objectives[one]}, {objectives[other]}"
        found[names] = value
        if value <= OPPOSITE:
            say(
                f"warning: scorers of {names} are exact opposites: what one gains the other loses, so the front is a "
                "straight line through the reference"
            )
    return found


def within_correlation(one_N: Floats, other_N: Floats, prompts: Sequence[str]) -> float | None:
    """Correlation of two columns around their prompts' means; None where one of them does not vary.

    Args:
        one_N: a value a row.
        other_N: a value a row.
        prompts: of each row.
    """
    known_N = ~(np.isnan(one_N) | np.isnan(other_N))
    columns = np.stack([one_N, other_N], axis=1)[known_N]
    kept = [prompt for prompt, known in zip(prompts, known_N, strict=True) if known]
    if not len(columns):
        return None
    centred = centred_within(columns, kept)
    sizes = np.sqrt(np.square(centred).sum(axis=0))
    return float((centred[:, 0] @ centred[:, 1]) / (sizes[0] * sizes[1])) if sizes.all() else None
