"""Pairs with each response's own safety label: SafeDPO's (arXiv 2505.20065) and a cost model's (arXiv 2310.12773)."""

from collections.abc import Callable, Sequence
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
    labels = _labels(rows)
    for pair in pairs_by(rows, objective):
        chosen, rejected = labels(pair)
        if chosen is None or rejected is None:
            unlabelled += 1
        elif not chosen and not rejected:
            both_unsafe += 1
        else:
            swapped += not chosen
            pairs.append(pair if chosen else replace(pair, chosen=pair.rejected, rejected=pair.chosen))
            gaps[pair.id] = int(chosen != rejected)
    return SafePairs(pairs, gaps, swapped, both_unsafe, unlabelled)


@dataclass(frozen=True)
class LabelledPairs:
    """The pairs of one objective whose responses are both labelled safe or unsafe."""

    pairs: list[Pair]
    safe: list[tuple[bool, bool]]
    """Of each pair, whether the chosen and the rejected response are safe."""
    contradicting: int
    """Pairs among them whose rejected response alone is safe."""
    unlabelled: int
    """Left out: nothing says whether one of the responses is safe."""


def labelled_pairs(rows: Sequence[RankedRow], objective: str) -> LabelledPairs:
    """The pairs of an objective with both safety labels, in the objective's own order."""
    pairs, safe, labels = [], [], _labels(rows)
    found = pairs_by(rows, objective)
    for pair in found:
        chosen, rejected = labels(pair)
        if chosen is not None and rejected is not None:
            pairs.append(pair)
            safe.append((chosen, rejected))
    contradicting = sum(rejected and not chosen for chosen, rejected in safe)
    return LabelledPairs(pairs, safe, contradicting, len(found) - len(pairs))


def _labels(rows: Sequence[RankedRow]) -> Callable[[Pair], tuple[bool | None, bool | None]]:
    """Whether a pair's chosen and rejected response are safe; None where the rows do not say."""
    safety = {row.id: dict(zip(row.responses, row.safe, strict=True)) for row in rows if row.safe}

    def labels(pair: Pair) -> tuple[bool | None, bool | None]:
        known = safety.get(pair.set.partition("#")[0], {})
        return known.get(pair.chosen), known.get(pair.rejected)

    return labels
