"""Group prefixes of one another: prefixes that are cut from one text are computed once, as its longest one."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.engine.sampling.base import PrefixRequest, sample_id


@dataclass(frozen=True)
class Branch:
    """One sample to draw."""

    name: str
    """Seeds its random stream, together with the run's seed."""
    prefix_ids: tuple[int, ...]
    request: int
    """The caller's index of its request."""
    sample: int

    @property
    def depth(self) -> int:
        """Tokens of the shared prefix that it attends to."""
        return len(self.prefix_ids)


@dataclass(frozen=True)
class SharedPrefix:
    """Tokens that are computed once, and the samples that branch off, deepest first."""

    token_ids: tuple[int, ...]
    branches: list[Branch]


def branches_of(requests: Sequence[PrefixRequest]) -> list[Branch]:
    """The samples that the requests still miss."""
    return [
        Branch(sample_id(request.id, sample), tuple(request.prefix_ids), number, sample)
        for number, request in enumerate(requests)
        for sample in request.missing()
    ]


def shared_prefixes_of(branches: Sequence[Branch]) -> list[SharedPrefix]:
    """Every branch, under the longest prefix that begins with its own; longest shared prefixes first.

    Longest first, so that memory runs out at once or never.

    Raises:
        ValueError: if two branches have one name, or a prefix is empty.
    """
    if len({branch.name for branch in branches}) < len(branches):
        names = sorted(branch.name for branch in branches)
        twice = next(left for left, right in itertools.pairwise(names) if left == right)
        raise ValueError(f"two samples have the id {twice!r}: they would draw the same tokens")
    by_prefix: dict[tuple[int, ...], list[Branch]] = {}
    for branch in branches:
        if not branch.prefix_ids:
            raise ValueError(f"sample {branch.name!r} has an empty prefix")
        by_prefix.setdefault(branch.prefix_ids, []).append(branch)
    found: list[SharedPrefix] = []
    for prefix in sorted(by_prefix, reverse=True):
        # In this order a prefix comes right after everything that begins with it.
        if not (found and found[-1].token_ids[: len(prefix)] == prefix):
            found.append(SharedPrefix(prefix, []))
        found[-1].branches.extend(by_prefix[prefix])
    return sorted(found, key=lambda prefix: len(prefix.token_ids), reverse=True)


def split(prefix: SharedPrefix, branches: int) -> tuple[SharedPrefix, SharedPrefix]:
    """Split off the prefix's deepest branches; returns their prefix, and that of the others."""
    first, others = prefix.branches[:branches], prefix.branches[branches:]
    return SharedPrefix(prefix.token_ids, first), SharedPrefix(others[0].prefix_ids, others)
