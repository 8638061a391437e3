"""Which prefixes are read together: those of one text, cut at several places, are one trunk."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.generation.base import PrefixRequest


@dataclass(frozen=True)
class Lane:
    """One sample to draw: its request's prefix is the first `depth` tokens of its trunk."""

    request: PrefixRequest
    sample: int
    depth: int


@dataclass(frozen=True)
class Trunk:
    """A text that the model reads once, and the samples that fork from it."""

    token_ids: list[int]
    lanes: list[Lane]


def trunks_of(requests: Sequence[PrefixRequest]) -> list[Trunk]:
    """Every missing sample, under the longest prefix that begins with its own; longest trunks first.

    Longest first, so that memory runs out at once or never.

    Raises:
        ValueError: if two requests have one id, or a prefix is empty.
    """
    ids = [request.id for request in requests]
    if len(set(ids)) < len(ids):
        raise ValueError(f"two requests have the id {next(name for name in ids if ids.count(name) > 1)!r}")
    trunks: list[Trunk] = []
    for request in sorted(requests, key=lambda request: request.prefix_ids, reverse=True):
        depth = len(request.prefix_ids)
        if depth == 0:
            raise ValueError(f"request {request.id!r} has an empty prefix")
        # In this order a prefix comes right after everything that begins with it.
        if not (trunks and trunks[-1].token_ids[:depth] == request.prefix_ids):
            trunks.append(Trunk(request.prefix_ids, []))
        trunks[-1].lanes.extend(Lane(request, sample, depth) for sample in request.missing())
    cut = [_cut(trunk.token_ids, trunk.lanes) for trunk in trunks if trunk.lanes]
    return sorted(cut, key=lambda trunk: len(trunk.token_ids), reverse=True)


def split(trunk: Trunk, lanes: int) -> tuple[Trunk, Trunk]:
    """The trunk with its deepest lanes, so many of them, and the trunk of the others."""
    return _cut(trunk.token_ids, trunk.lanes[:lanes]), _cut(trunk.token_ids, trunk.lanes[lanes:])


def _cut(token_ids: list[int], lanes: list[Lane]) -> Trunk:
    """As much of the text as its lanes need, deepest lane first."""
    ordered = sorted(lanes, key=lambda lane: lane.depth, reverse=True)
    return Trunk(token_ids[: ordered[0].depth], ordered)
