"""SafeDPO's pairs: a safe response is never rejected for an unsafe one (arXiv 2505.20065)."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

from alignlab.data.records import Pair, RankedRow, pairs_by


@dataclass(frozen=True)
class SafePairs:
    """The pairs of one objective after the transformation, and what became of the others."""

    pairs: list[Pair]
    gaps: dict[str, int]
    """Pair id -> 1 where the rejected response is unsafe and the chosen one safe, 0 where both are safe."""
    swapped: int
    """Pairs whose chosen response was the unsafe one of the two."""
    both_unsafe: int
    """Left out: the optimum gives neither response a probability."""
    unlabelled: int
    """Left out: nothing says whether one of the responses is safe."""


def safe_pairs(rows: Sequence[RankedRow], objective: str) -> SafePairs:
    """The pairs of an objective, turned round where only the rejected response is safe."""
    pairs, gaps, swapped, both_unsafe, unlabelled = [], {}, 0, 0, 0
    safety = {row.id: dict(zip(row.responses, row.safe, strict=True)) for row in rows if row.safe}
    for pair in pairs_by(rows, objective):
        known = safety.get(pair.set.partition("#")[0], {})
        chosen, rejected = known.get(pair.chosen), known.get(pair.rejected)
        if chosen is None or rejected is None:
            unlabelled += 1
        elif not chosen and not rejected:
            both_unsafe += 1
        else:
            swapped += not chosen
            pairs.append(pair if chosen else replace(pair, chosen=pair.rejected, rejected=pair.chosen))
            gaps[pair.id] = int(chosen != rejected)
    return SafePairs(pairs, gaps, swapped, both_unsafe, unlabelled)
