"""How rows lie in memory: padded, or as a forest in which every shared prefix lies once.

Rows that begin with the same tokens share a tree. A tree is laid out in preorder, so the descendants of a token lie in
one stretch behind it: slot q may attend to slot k exactly when k <= q < end[k], one comparison for any shape of tree.

Shape letters: B rows as asked, R packed rows, L slots of a packed row, T tokens of the longest row, N scored tokens.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from alignlab.models.prompts import Encoded

Ints = NDArray[np.int64]

MASK_PRICE = 1 / 800
"""What one mask entry costs, in tokens: joining two trees saves tokens and grows the mask.

By arithmetic alone, attention over L^2 entries equals the linear layers over L^2 / (6 * width) tokens: 1/1536 at a
width of 256. Measured there on a CPU, 1/400 to 1/1500 are within a tenth of each other on pairs and on ranked sets.
"""

DENSE_CAPACITY = 1024
"""Slots of a packed row under a dense mask: beyond it one long row costs more than padding several."""


@dataclass(frozen=True)
class Layout:
    """Tokens as the model sees them, and where each scored token's prediction lies."""

    ids_RL: Tensor
    positions_RL: Tensor
    ends_RL: Tensor
    """One past the last slot that may attend to this one; a padding slot is its own tree."""
    sources_N: Tensor
    """Flat slot (row * L + slot) whose prediction scores the token."""
    targets_N: Tensor
    """The scored tokens."""
    entries_BT: Tensor
    """For each row and position t, the entry of token t+1 among the N scored ones; N where nothing is scored."""
    num_real: int
    """Tokens of all rows, as they were asked for."""
    num_distinct: int
    """Tokens that are laid out: shared ones once."""
    is_causal: bool
    """Whether every packed row holds one row from its start, so that a plain padding mask serves."""

    @property
    def num_slots(self) -> int:
        """Slots that the model computes, padding included."""
        return self.ids_RL.numel()

    def mask(self) -> Tensor:
        """Which slot (second to last axis) may attend to which (last axis), bool, shape (R, 1, L, L)."""
        slots = torch.arange(self.ids_RL.shape[1], device=self.ids_RL.device)
        earlier = slots[None, :] <= slots[:, None]
        return (earlier & (slots[:, None] < self.ends_RL[:, None, :]))[:, None]

    def real_mask(self) -> Tensor:
        """Which slots hold a token, where each packed row is one row from its start, bool, shape (R, L)."""
        return torch.arange(self.ids_RL.shape[1], device=self.ids_RL.device) < self.ends_RL[:, :1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Layout":
        """The layout on a device; accelerate calls this."""
        moved = {
            name: getattr(self, name).to(device, non_blocking=non_blocking)
            for name in ("ids_RL", "positions_RL", "ends_RL", "sources_N", "targets_N", "entries_BT")
        }
        return replace(self, **moved)


@dataclass
class _Tree:
    """One tree in preorder."""

    ids: list[int]
    positions: list[int]
    ends: list[int]
    path_of: dict[int, Ints]
    """Row number -> the slots of its tokens."""


def padded_layout(rows: Sequence[Encoded]) -> Layout:
    """Every row for itself, padded on the right to the longest."""
    trees = [_grow([row.prompt_ids + row.response_ids], [number]) for number, row in enumerate(rows)]
    width = max(len(tree.ids) for tree in trees)
    return _lay_out(rows, [[tree] for tree in trees], width=width)


def forest_layout(rows: Sequence[Encoded], *, mask_price: float = MASK_PRICE) -> Layout:
    """Shared prefixes once, trees packed into rows of like length.

    Args:
        rows: prompts and responses as tokens; identical rows share everything.
        mask_price: what one mask entry costs, in tokens; 0 shares whatever can be shared (block-sparse attention).
    """
    texts = [row.prompt_ids + row.response_ids for row in rows]
    order = sorted(range(len(rows)), key=lambda number: texts[number])
    trees = [_grow([texts[number] for number in group], group) for group in _groups(texts, order, mask_price)]
    longest = max(len(tree.ids) for tree in trees)
    bins = _first_fit(trees, capacity=max(longest, _capacity(trees, mask_price)))
    width = max(sum(len(tree.ids) for tree in trees_of_row) for trees_of_row in bins)
    return _lay_out(rows, bins, width=width)


def _groups(texts: Sequence[list[int]], order: Sequence[int], mask_price: float) -> list[list[int]]:
    """Rows in sorted order, cut where sharing would cost more mask than it saves tokens."""
    groups: list[list[int]] = []
    size = 0
    for number in order:
        length = len(texts[number])
        shared = _common_prefix(texts[groups[-1][-1]], texts[number]) if groups else 0
        new = length - shared
        extra_mask = (size + new) ** 2 - size**2 - length**2
        if shared > max(0.0, mask_price * extra_mask):
            groups[-1].append(number)
            size += new
        else:
            groups.append([number])
            size = length
    return groups


def _grow(texts: Sequence[list[int]], numbers: Sequence[int]) -> _Tree:
    """The tree of texts in sorted order: each adds what it does not share with the one before."""
    tree = _Tree([], [], [], {})
    path: list[int] = []
    previous: list[int] = []
    for text, number in zip(texts, numbers, strict=True):
        shared = _common_prefix(previous, text)
        for slot in path[shared:]:
            tree.ends[slot] = len(tree.ids)
        start = len(tree.ids)
        tree.ids += text[shared:]
        tree.positions += range(shared, len(text))
        tree.ends += [0] * (len(text) - shared)
        path = path[:shared] + list(range(start, len(tree.ids)))
        previous = text
        tree.path_of[number] = np.array(path, dtype=np.int64)
    for slot in path:
        tree.ends[slot] = len(tree.ids)
    return tree


def _capacity(trees: Sequence[_Tree], mask_price: float) -> int:
    """Slots of a packed row: everything in one where masks are free, else the cheapest of a few candidates."""
    sizes = sorted((len(tree.ids) for tree in trees), reverse=True)
    if mask_price == 0:
        return sum(sizes)
    candidates = {size for factor in (1, 1.5, 2, 3) if (size := int(sizes[0] * factor)) <= DENSE_CAPACITY}

    def price(capacity: int) -> float:
        num_rows = len(_first_fit(trees, capacity=capacity))
        return num_rows * (capacity + mask_price * capacity**2)

    return min(candidates or {sizes[0]}, key=price)


def _first_fit(trees: Sequence[_Tree], *, capacity: int) -> list[list[_Tree]]:
    """Trees into rows of at most `capacity` slots, largest first."""
    bins: list[list[_Tree]] = []
    room: list[int] = []
    for tree in sorted(trees, key=lambda tree: -len(tree.ids)):
        place = next((place for place, free in enumerate(room) if free >= len(tree.ids)), None)
        if place is None:
            bins.append([])
            room.append(capacity)
            place = len(bins) - 1
        bins[place].append(tree)
        room[place] -= len(tree.ids)
    return bins


def _lay_out(rows: Sequence[Encoded], bins: Sequence[Sequence[_Tree]], *, width: int) -> Layout:
    ids = np.zeros((len(bins), width), dtype=np.int64)  # no slot attends to an empty one, so any token fills it
    positions = np.zeros_like(ids)
    ends = np.broadcast_to(np.arange(1, width + 1), ids.shape).copy()
    path_of: dict[int, Ints] = {}
    is_causal = True
    for number, trees in enumerate(bins):
        start = 0
        for tree in trees:
            stop = start + len(tree.ids)
            ids[number, start:stop] = tree.ids
            positions[number, start:stop] = tree.positions
            ends[number, start:stop] = np.array(tree.ends) + start
            path_of |= {row: number * width + start + path for row, path in tree.path_of.items()}
            is_causal &= len(tree.path_of) == 1 and start == 0
            start = stop
    return _with_targets(rows, path_of, ids, positions, ends, is_causal=is_causal)


def _with_targets(
    rows: Sequence[Encoded], path_of: dict[int, Ints], ids: Ints, positions: Ints, ends: Ints, *, is_causal: bool
) -> Layout:
    """Numbers the scored slots: a token that several rows score is scored once."""
    paths = [path_of[number] for number in range(len(rows))]
    starts = [len(row.prompt_ids) for row in rows]
    scored = np.unique(np.concatenate([path[start:] for path, start in zip(paths, starts, strict=True)]))
    source_of = np.zeros(ids.size, dtype=np.int64)
    longest = max(len(path) for path in paths)
    entries = np.full((len(rows), max(longest - 1, 1)), len(scored), dtype=np.int64)
    for number, (path, start) in enumerate(zip(paths, starts, strict=True)):
        assert start > 0, "a response needs a token before it"
        source_of[path[start:]] = path[start - 1 : -1]
        entries[number, start - 1 : len(path) - 1] = np.searchsorted(scored, path[start:])
    return Layout(
        ids_RL=torch.from_numpy(ids),
        positions_RL=torch.from_numpy(positions),
        ends_RL=torch.from_numpy(ends),
        sources_N=torch.from_numpy(source_of[scored]),
        targets_N=torch.from_numpy(ids.reshape(-1)[scored]),
        entries_BT=torch.from_numpy(entries),
        num_real=sum(len(path) for path in paths),
        num_distinct=len(np.unique(np.concatenate(paths))),
        is_causal=is_causal,
    )


def _common_prefix(left: list[int], right: list[int]) -> int:
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    return next(place for place in range(limit) if left[place] != right[place])
