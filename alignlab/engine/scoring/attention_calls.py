"""What attention computes of a forest: each row's new tokens look along the row's path.

The layers of a model that see one token at a time take every distinct token once. Attention alone sees rows: the slots
that a row adds are its queries, and the slots from its tree's root down to them its keys, in order of depth, so that
the mask is the ordinary causal one. Rows of like size are attended to in one call.

Shape letters: B rows of a call, Q new slots, K slots of a path.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]

CALL_PRICE = 4096
"""Mask entries that one call of attention is worth: rows are padded to each other while that wastes fewer."""


@dataclass(frozen=True)
class Read:
    """Rows that are attended to in one call."""

    asking_BQ: Tensor
    """Slots of the queries; filled up with slot 0, whose answers nobody reads."""
    seen_BK: Tensor
    """Slots of the keys, by depth; filled up with slot 0, deeper than every query and so hidden from it."""
    starts_B: Tensor
    """Depth of the first query."""
    is_causal: bool
    """Whether the queries are the whole paths, so that attention needs no mask."""

    def moved(self, move: Callable[[Tensor], Tensor]) -> "Read":
        """The same, each tensor as `move` gives it."""
        return Read(move(self.asking_BQ), move(self.seen_BK), move(self.starts_B), self.is_causal)

    def seen(self, window: int | None) -> Tensor:
        """Which key (last axis) each query sees, bool, shape (B, 1, Q, K)."""
        queries = torch.arange(self.asking_BQ.shape[1], device=self.starts_B.device)
        keys = torch.arange(self.seen_BK.shape[1], device=self.starts_B.device)
        behind = (self.starts_B[:, None] + queries)[:, :, None] - keys
        seen = behind >= 0 if window is None else (behind >= 0) & (behind < window)
        return seen[:, None]


@dataclass(frozen=True)
class Path:
    """A row's slots from the root down, of which others answer for the first ones."""

    slots: Ints
    shared: int

    @property
    def new(self) -> int:
        """Slots that this row answers for."""
        return len(self.slots) - self.shared


def reads_of(paths: Sequence[Path]) -> tuple[tuple[Read, ...], Ints]:
    """Calls that answer every slot once, and for each slot its place among their answers, laid end to end."""
    calls = _calls([path for path in paths if path.new])
    reads = tuple(_read(call) for call in calls)
    num_slots = sum(path.new for call in calls for path in call)
    places = np.zeros(num_slots, dtype=np.int64)
    start = 0
    for call, read in zip(calls, reads, strict=True):
        width = read.asking_BQ.shape[1]
        for path in call:
            places[path.slots[path.shared :]] = np.arange(start, start + path.new)
            start += width
    return reads, places


def _calls(paths: Sequence[Path]) -> list[list[Path]]:
    """Paths in groups of like size; those that share nothing apart from the others, for they need no mask."""
    calls: list[list[Path]] = []
    for is_alone in (True, False):
        asked = sorted((path for path in paths if (path.shared == 0) is is_alone), key=lambda path: -len(path.slots))
        area = 0  # of the open call, with the padding
        for number, path in enumerate(asked):
            widest = max(path.new, *(other.new for other in calls[-1])) if number else path.new
            joined = (len(calls[-1]) + 1) * widest * len(calls[-1][0].slots) if number else 0
            own = path.new * len(path.slots)
            if number and joined - area - own < CALL_PRICE:
                calls[-1].append(path)
                area = joined
            else:
                calls.append([path])
                area = own
    return calls


def _read(call: Sequence[Path]) -> Read:
    asking = np.zeros((len(call), max(path.new for path in call)), dtype=np.int64)
    seen = np.zeros((len(call), max(len(path.slots) for path in call)), dtype=np.int64)
    for number, path in enumerate(call):
        asking[number, : path.new] = path.slots[path.shared :]
        seen[number, : len(path.slots)] = path.slots
    starts = np.array([path.shared for path in call], dtype=np.int64)
    is_causal = all(path.shared == 0 for path in call)
    return Read(torch.from_numpy(asking), torch.from_numpy(seen), torch.from_numpy(starts), is_causal)
