"""dataset.keep=consistent: the pairs that all objectives rank alike (reward consistency, arXiv 2504.11337)."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignlab.data.records import RankedRow


@dataclass(frozen=True)
class Consistency:
    """Pairs of different responses, by what the objectives say of them."""

    alike: int
    """Ranked by all, in the same way."""
    opposite: int
    """Ranked by all, and not in the same way."""
    unranked: int
    """Not ranked by all: one scores both alike, or says nothing of one."""


def consistent_rows(rows: Sequence[RankedRow], objectives: Sequence[str]) -> tuple[list[RankedRow], Consistency]:
    """The rows with the pairs that all objectives rank alike; rows without any are left out."""
    kept, counts = [], {True: 0, False: 0, None: 0}
    for row in rows:
        pairs = {
            pair: _are_alike(row, *pair, objectives) for pair in itertools.combinations(range(len(row.responses)), 2)
        }
        for found in pairs.values():
            counts[found] += 1
        only = frozenset(pair for pair, found in pairs.items() if found)
        if only:
            kept.append(replace(row, only=only))
    return kept, Consistency(counts[True], counts[False], counts[None])


def _are_alike(row: RankedRow, first: int, second: int, objectives: Sequence[str]) -> bool | None:
    """Whether all objectives rank two responses of a row in one way; None where one does not rank them.

    Args:
        row: the row.
        first: a response's index.
        second: another's.
        objectives: their names.
    """
    signs = set()
    for name in objectives:
        scores = row.scores.get(name, ())
        left, right = (scores[first], scores[second]) if scores else (None, None)
        if left is None or right is None or left == right:
            return None
        signs.add(left > right)
    return len(signs) == 1
