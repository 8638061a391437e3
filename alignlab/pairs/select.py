"""Which two answers of a prompt are compared, and which of them each objective calls better.

Shape letters: N answers of a prompt, M objectives.
"""

import itertools
import math
import random
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Pair = tuple[int, int]
"""Indices of two answers of a prompt, ascending."""


@dataclass(frozen=True)
class Selection:
    """How pairs are chosen and labelled."""

    select: str
    labels: str
    temperature: float
    """Of labels=bradley_terry, in the scorers' units."""
    min_margin: float
    """Least difference of an objective's scores at which it labels a pair, in its scorer's unit."""
    seed: int


@dataclass(frozen=True)
class ScoredAnswers:
    """The answers of one prompt that can be compared: no empty ones, no near copies."""

    prompt_id: str
    ids: tuple[str, ...]
    scores_NM: Floats
    """NaN where a scorer gave none."""


@dataclass(frozen=True)
class LabelledPair:
    """Two answers and the better of them by objective."""

    pair: Pair
    better: tuple[int | None, ...]
    """One entry an objective: 0 or 1, which of the pair is better; None where it says nothing."""


def labelled_pairs(
    answers: ScoredAnswers, selection: Selection, units_M: Floats, weights_M: Floats
) -> list[LabelledPair]:
    """The pairs of one prompt, each once; a pair that no objective ranks is none.

    Args:
        answers: of one prompt.
        selection: how pairs are chosen and labelled.
        units_M: spread of each objective's scores within prompts; `weighted` divides by it.
        weights_M: weights of the objectives, for `weighted`.
    """
    chosen = _RULES[selection.select](answers, selection, weights_M / units_M)
    labelled = (
        LabelledPair(pair, tuple(_label(answers, pair, m, selection) for m in range(len(units_M)))) for pair in chosen
    )
    return [one for one in labelled if any(better is not None for better in one.better)]


def chance_of_first(difference: float, temperature: float) -> float:
    """Bradley-Terry: probability that the first of two answers is called better.

    Args:
        difference: its score minus the other's.
        temperature: units of the score that make one nat of log-odds.
    """
    return 1 / (1 + math.exp(min(-difference / temperature, 700.0)))


def _label(answers: ScoredAnswers, pair: Pair, objective: int, selection: Selection) -> int | None:
    difference = float(answers.scores_NM[pair[0], objective] - answers.scores_NM[pair[1], objective])
    if not _ranks(difference, selection):
        return None
    if selection.labels == "best":
        return 0 if difference > 0 else 1
    first, second = (answers.ids[index] for index in pair)
    drawn = random.Random(f"label {selection.seed} {first} {second} {objective}").random()
    return 0 if drawn < chance_of_first(difference, selection.temperature) else 1


def _ranks(difference: float, selection: Selection) -> bool:
    """Whether a difference ranks: not where a score is missing, and never a tie."""
    return abs(difference) > 0 and abs(difference) >= selection.min_margin


def _all(answers: ScoredAnswers, selection: Selection, weights_M: Floats) -> list[Pair]:
    return list(itertools.combinations(range(len(answers.ids)), 2))


def _random(answers: ScoredAnswers, selection: Selection, weights_M: Floats) -> list[Pair]:
    """Each answer in one pair at most."""
    order = list(range(len(answers.ids)))
    random.Random(f"pairs {selection.seed} {answers.prompt_id}").shuffle(order)
    return [_ascending(*pair) for pair in zip(order[::2], order[1::2], strict=False)]


def _extremes(answers: ScoredAnswers, selection: Selection, weights_M: Floats) -> list[Pair]:
    """Best against worst of each objective; one that several objectives choose once."""
    found = (_best_and_worst(scores_N) for scores_N in answers.scores_NM.T)
    return list(dict.fromkeys(pair for pair in found if pair is not None))


def _weighted(answers: ScoredAnswers, selection: Selection, weights_M: Floats) -> list[Pair]:
    weighs_M = weights_M != 0  # an unknown score of what weighs nothing does not matter
    pair = _best_and_worst(answers.scores_NM[:, weighs_M] @ weights_M[weighs_M])
    return [] if pair is None else [pair]


def _consistent(answers: ScoredAnswers, selection: Selection, weights_M: Floats) -> list[Pair]:
    """All objectives rank the pair, and alike."""
    return [
        pair
        for pair in _all(answers, selection, weights_M)
        if len({_ranks(gap, selection) and gap > 0 for gap in _gaps(answers, pair)}) == 1
        and all(_ranks(gap, selection) for gap in _gaps(answers, pair))
    ]


def _pareto(answers: ScoredAnswers, selection: Selection, weights_M: Floats) -> list[Pair]:
    """One answer is at least as good by every objective and better by one."""
    found = []
    for pair in _all(answers, selection, weights_M):
        gaps = _gaps(answers, pair)
        known = not any(math.isnan(gap) for gap in gaps)
        one_sided = all(gap >= 0 for gap in gaps) or all(gap <= 0 for gap in gaps)
        if known and one_sided and any(_ranks(gap, selection) for gap in gaps):
            found.append(pair)
    return found


def _gaps(answers: ScoredAnswers, pair: Pair) -> list[float]:
    return [float(gap) for gap in answers.scores_NM[pair[0]] - answers.scores_NM[pair[1]]]


def _best_and_worst(scores_N: Floats) -> Pair | None:
    """None where all known scores are equal."""
    if np.isnan(scores_N).all() or np.nanmax(scores_N) == np.nanmin(scores_N):
        return None
    return _ascending(int(np.nanargmax(scores_N)), int(np.nanargmin(scores_N)))


def _ascending(one: int, other: int) -> Pair:
    return (one, other) if one < other else (other, one)


Rule = Callable[[ScoredAnswers, Selection, Floats], list[Pair]]
_RULES: Mapping[str, Rule] = {
    "extremes": _extremes,
    "all": _all,
    "random": _random,
    "consistent": _consistent,
    "pareto": _pareto,
    "weighted": _weighted,
}


def spread_within(scores_NM: Floats, prompts: Sequence[str]) -> Floats:
    """Standard deviation of scores around their prompt's mean, (M,); 0 where all answers of each prompt score alike.

    Args:
        scores_NM: of the answers of all prompts, NaN where there is none.
        prompts: the prompt of each answer.
    """
    centred_NM = centred_within(scores_NM, prompts)
    known_NM = ~np.isnan(centred_NM)
    squares_M = np.nansum(np.square(centred_NM), axis=0)
    spread_M: Floats = np.sqrt(squares_M / np.maximum(known_NM.sum(axis=0), 1))
    return spread_M


def centred_within(scores_NM: Floats, prompts: Sequence[str]) -> Floats:
    """Scores minus the mean of their prompt's known ones, (N, M); NaN where a score is.

    Args:
        scores_NM: of the answers of all prompts, NaN where there is none.
        prompts: the prompt of each answer.
    """
    numbers = {prompt: number for number, prompt in enumerate(dict.fromkeys(prompts))}
    prompt_N = np.array([numbers[prompt] for prompt in prompts], dtype=np.intp)
    centred_NM = scores_NM.copy()
    for m, scores_N in enumerate(scores_NM.T):
        known_N = ~np.isnan(scores_N)
        counts_P = np.bincount(prompt_N[known_N], minlength=len(numbers))
        sums_P = np.bincount(prompt_N[known_N], weights=scores_N[known_N], minlength=len(numbers))
        centred_NM[:, m] -= (sums_P / np.maximum(counts_P, 1))[prompt_N]
    return centred_NM
