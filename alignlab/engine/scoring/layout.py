"""How rows lie in memory: padded, or as a forest in which every shared prefix lies once.

Rows that begin with the same tokens share a tree. A tree is laid out in preorder, so the descendants of a token lie in
one stretch behind it: slot q may attend to slot k exactly when k <= q < end[k], one comparison for any shape of tree.
All trees lie behind one another in a single row, without padding.

Shape letters: B rows as asked, R rows of the model's input, L slots of such a row, T tokens of the longest row asked,
N scored tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alignlab.engine.scoring.attention_calls import Ints, Path, Read, reads_of
from alignlab.models.prompts import Encoded

MASK_PRICE = 1 / 800
"""What one mask entry costs, in tokens: a row that shares its beginning saves tokens, but is attended to under a mask.

By arithmetic alone, attention over L^2 entries equals the linear layers over L^2 / (6 * width) tokens: 1/1536 at a
width of 256.
"""

BLOCK_SLOTS = 128
"""Side of a block of FlexAttention's mask."""


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
    longest: int
    """Tokens of the longest row."""
    reads: tuple[Read, ...] = ()
    """The calls of attention over the packed row; empty where every row is padded for itself."""
    places_L: Tensor | None = None
    """Each slot's place among the calls' answers, laid end to end."""
    in_blocks: bool = False
    """Whether the forest is for one call under a block-sparse mask."""

    @property
    def num_slots(self) -> int:
        """Slots that the model computes, padding included."""
        return self.ids_RL.numel()

    @property
    def is_forest(self) -> bool:
        """Whether the rows lie as trees; else each is padded for itself."""
        return self.in_blocks or bool(self.reads)

    def real_mask(self) -> Tensor:
        """Which slots of a padded layout hold a token, bool, shape (R, L)."""
        return torch.arange(self.ids_RL.shape[1], device=self.ids_RL.device) < self.ends_RL[:, :1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "Layout":
        """The layout on a device; accelerate calls this."""
        return self._moved(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Layout":
        """The layout in memory from which a GPU copies without waiting; torch's DataLoader calls this."""
        return self._moved(lambda tensor: tensor.pin_memory())

    def _moved(self, move: Callable[[Tensor], Tensor]) -> "Layout":
        tensors = {name: move(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, reads=tuple(read.moved(move) for read in self.reads))  # type: ignore[arg-type]


@dataclass
class _Tree:
    """One tree in preorder."""

    ids: list[int]
    positions: list[int]
    ends: list[int]
    paths: dict[int, Path]
    """Row number -> the slots of its tokens."""


def padded_layout(rows: Sequence[Encoded]) -> Layout:
    """Every row for itself, padded on the right to the longest."""
    trees = [_grow([row.prompt_ids + row.response_ids], [number]) for number, row in enumerate(rows)]
    width = max(len(tree.ids) for tree in trees)
    return _lay_out(rows, trees, starts=range(0, width * len(trees), width), shape=(len(trees), width))[0]


def forest_layout(rows: Sequence[Encoded], *, mask_price: float = MASK_PRICE, in_blocks: bool = False) -> Layout:
    """Shared prefixes once, all trees in one row.

    Args:
        rows: prompts and responses as tokens; identical rows share everything.
        mask_price: what one mask entry costs, in tokens; 0 shares whatever can be shared.
        in_blocks: for a block-sparse mask, which skips what no slot sees: share everything, and round the row's length
            up, so that few lengths occur and what is compiled for one serves again.
    """
    texts = [row.prompt_ids + row.response_ids for row in rows]
    order = sorted(range(len(rows)), key=lambda number: texts[number])
    groups = _groups(texts, order, 0.0 if in_blocks else mask_price)
    trees = [_grow([texts[number] for number in group], group) for group in groups]
    starts = np.cumsum([0, *(len(tree.ids) for tree in trees)]).tolist()
    width = rounded_up(starts[-1]) if in_blocks else starts[-1]
    layout, paths = _lay_out(rows, trees, starts=starts[:-1], shape=(1, width))
    if in_blocks:
        return replace(layout, in_blocks=True)
    reads, places = reads_of(paths)
    return replace(layout, reads=reads, places_L=torch.from_numpy(places))


def rounded_up(size: int) -> int:
    """The next of few lengths: a multiple of BLOCK_SLOTS, at most an eighth above the size from 1,024 slots on.

    Two blocks at least: a compiler takes a size of one for a case of its own.
    """
    step = max(BLOCK_SLOTS, 1 << max(0, size.bit_length() - 4))
    return max(-(-size // step) * step, 2 * BLOCK_SLOTS)


def _groups(texts: Sequence[list[int]], order: Sequence[int], mask_price: float) -> list[list[int]]:
    """Rows in sorted order, cut where sharing would cost more mask than it saves tokens."""
    groups: list[list[int]] = []
    for number in order:
        length = len(texts[number])
        shared = _common_prefix(texts[groups[-1][-1]], texts[number]) if groups else 0
        extra_mask = (length - shared) * length - length**2 / 2  # without a mask, attention skips what is hidden
        if shared > max(0.0, mask_price * extra_mask):
            groups[-1].append(number)
        else:
            groups.append([number])
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
        tree.paths[number] = Path(np.array(path, dtype=np.int64), shared)
    for slot in path:
        tree.ends[slot] = len(tree.ids)
    return tree


def _lay_out(
    rows: Sequence[Encoded], trees: Sequence[_Tree], *, starts: Sequence[int], shape: tuple[int, int]
) -> tuple[Layout, list[Path]]:
    """Trees at their flat starts, and the rows' paths there.

    Slots between trees are empty: each sees itself alone, so any token fills it.
    """
    num_slots, width = shape[0] * shape[1], shape[1]
    ids, positions = np.zeros(num_slots, dtype=np.int64), np.zeros(num_slots, dtype=np.int64)
    ends = np.arange(num_slots) % width + 1
    path_of: dict[int, Path] = {}
    for start, tree in zip(starts, trees, strict=True):
        stop = start + len(tree.ids)
        ids[start:stop] = tree.ids
        positions[start:stop] = tree.positions
        ends[start:stop] = np.array(tree.ends) + start % width
        path_of |= {row: Path(start + path.slots, path.shared) for row, path in tree.paths.items()}
    paths = [path_of[number] for number in range(len(rows))]
    sources, targets, entries = _targets(rows, [path.slots for path in paths], ids)
    layout = Layout(
        ids_RL=torch.from_numpy(ids.reshape(shape)),
        positions_RL=torch.from_numpy(positions.reshape(shape)),
        ends_RL=torch.from_numpy(ends.reshape(shape)),
        sources_N=torch.from_numpy(sources),
        targets_N=torch.from_numpy(targets),
        entries_BT=torch.from_numpy(entries),
        num_real=sum(len(path.slots) for path in paths),
        num_distinct=sum(len(tree.ids) for tree in trees),
        longest=max(len(path.slots) for path in paths),
    )
    return layout, paths


def _targets(rows: Sequence[Encoded], paths: Sequence[Ints], ids: Ints) -> tuple[Ints, Ints, Ints]:
    """Numbers the scored slots (sources, targets, entries): a token that several rows score is scored once."""
    starts = [len(row.prompt_ids) for row in rows]
    scored = np.unique(np.concatenate([path[start:] for path, start in zip(paths, starts, strict=True)]))
    source_of = np.zeros(ids.size, dtype=np.int64)
    longest = max(len(path) for path in paths)
    entries = np.full((len(rows), max(longest - 1, 1)), len(scored), dtype=np.int64)
    for number, (path, start) in enumerate(zip(paths, starts, strict=True)):
        assert start > 0, "a response needs a token before it"
        source_of[path[start:]] = path[start - 1 : -1]
        entries[number, start - 1 : len(path) - 1] = np.searchsorted(scored, path[start:])
    return source_of[scored], ids[scored], entries


def _common_prefix(left: list[int], right: list[int]) -> int:
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    return next(place for place in range(limit) if left[place] != right[place])
