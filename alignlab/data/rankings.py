"""Which pairs of a synthesised ranked set are trained on. Imports no torch."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations

FEWEST = 3
"""A synthesised set holds its best response, its worst one, and one corrected response at least."""

HARMFUL, BENIGN = "harmful", "benign"
"""What a set is of: safe, corrected early to late, harmful; or helpful, falsely corrected late to early, refused."""


@dataclass(frozen=True)
class Ranking:
    """Some of a set's responses, by their indices, with a score each; equal scores make no pair."""

    indices: tuple[int, ...]
    scores: tuple[float, ...]

    def pairs(self) -> Iterator[tuple[int, int]]:
        """(better, worse) indices in the set."""
        for one, other in combinations(range(len(self.indices)), 2):
            if self.scores[one] != self.scores[other]:
                better, worse = (one, other) if self.scores[one] > self.scores[other] else (other, one)
                yield self.indices[better], self.indices[worse]


def rankings(strategy: str, num: int, *, kind: str = HARMFUL) -> list[Ranking]:
    """The parts of a set of `num` responses, best first, whose pairs a strategy takes; none where it has no pair.

    all: every pair. adjacent: each beats the next. best_worst: the first beats the last. principle_1: each correction
    beats the harmful response. principle_2: an earlier correction beats a later one.

    In a harmless set only the helpful response is ever chosen: what the others are ranked by would teach to correct
    what is no mistake. It beats all others; the next; the last; each correction; or, by principle_2, none.

    Args:
        strategy: name of the selection.
        num: responses of the set.
        kind: of the set, as the strategy tells them apart.
    """
    last = num - 1
    if strategy == "best_worst":
        return [Ranking((0, last), (1.0, 0.0))]
    if kind == BENIGN:
        beaten = {"all": range(1, num), "adjacent": range(1, 2), "principle_1": range(1, last)}.get(strategy, range(0))
        return [Ranking((0, *beaten), (1.0, *(0.0 for _ in beaten)))] if beaten else []
    if strategy == "adjacent":
        return [Ranking((index, index + 1), (1.0, 0.0)) for index in range(last)]
    if strategy == "principle_1":
        return [Ranking(tuple(range(1, num)), (*(1.0 for _ in range(1, last)), 0.0))]
    indices = tuple(range(1, last)) if strategy == "principle_2" else tuple(range(num))
    return (
        [Ranking(indices, tuple(float(len(indices) - 1 - rank) for rank in range(len(indices))))] if indices[1:] else []
    )
