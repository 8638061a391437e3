"""Which prefixes are read together: those of one text, cut at several places, are one trunk."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.engine.sampling.base import PrefixRequest, sample_id


@dataclass(frozen=True)
class Lane:
    """One sample to draw."""

    name: str
    """What its randomness comes from, with the seed."""
    prefix_ids: tuple[int, ...]
    request: int
    """Whose it is: a number that means something to the caller."""
    sample: int

    @property
    def depth(self) -> int:
        """How much of its trunk it sees."""
        return len(self.prefix_ids)


@dataclass(frozen=True)
class Trunk:
    """A text that the model reads once, and the samples that fork from it, deepest first."""

    token_ids: tuple[int, ...]
    lanes: list[Lane]


def lanes_of(requests: Sequence[PrefixRequest]) -> list[Lane]:
    """The samples that the requests miss; `request` counts the requests."""
    return [
        Lane(sample_id(request.id, sample), tuple(request.prefix_ids), number, sample)
        for number, request in enumerate(requests)
        for sample in request.missing()
    ]


def trunks_of(lanes: Sequence[Lane]) -> list[Trunk]:
    """Every lane, under the longest prefix that begins with its own; longest trunks first.

    Longest first, so that memory runs out at once or never.

    Raises:
        ValueError: if two lanes have one name, or a prefix is empty.
    """
    if len({lane.name for lane in lanes}) < len(lanes):
        names = sorted(lane.name for lane in lanes)
        twice = next(left for left, right in itertools.pairwise(names) if left == right)
        raise ValueError(f"two samples have the id {twice!r}: they would draw the same tokens")
    by_prefix: dict[tuple[int, ...], list[Lane]] = {}
    for lane in lanes:
        if not lane.prefix_ids:
            raise ValueError(f"sample {lane.name!r} has an empty prefix")
        by_prefix.setdefault(lane.prefix_ids, []).append(lane)
    trunks: list[Trunk] = []
    for prefix in sorted(by_prefix, reverse=True):
        # In this order a prefix comes right after everything that begins with it.
        if not (trunks and trunks[-1].token_ids[: len(prefix)] == prefix):
            trunks.append(Trunk(prefix, []))
        trunks[-1].lanes.extend(by_prefix[prefix])
    return sorted(trunks, key=lambda trunk: len(trunk.token_ids), reverse=True)


def split(trunk: Trunk, lanes: int) -> tuple[Trunk, Trunk]:
    """The trunk with its deepest lanes, so many of them, and the trunk of the others."""
    first, others = trunk.lanes[:lanes], trunk.lanes[lanes:]
    return Trunk(trunk.token_ids, first), Trunk(others[0].prefix_ids, others)
