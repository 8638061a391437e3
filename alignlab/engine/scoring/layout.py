"""Token batches: rows padded, or packed into a prefix tree in which every shared prefix lies once.

Rows that begin with the same tokens share a tree. A tree is laid out in preorder, so the descendants of a position are
one stretch behind it: position q may attend to position k exactly when k <= q < subtree_end[k], for any shape of tree.
All trees lie behind one another in a single row, without padding.

Shape letters: B rows as given, R rows of the model's input, L positions of such a row, T tokens of the longest given
row, N scored tokens.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch
from torch import Tensor

from alignlab.engine.scoring.attention_calls import AttentionCall, Ints, TreePath, plan_calls
from alignlab.io.prefix import common_prefix
from alignlab.models.prompts import Encoded

MASK_COST = 1 / 800
"""Cost of one attention-mask entry in token equivalents; prefixes are shared only where that saves more tokens.

By arithmetic alone, attention over L^2 entries equals the linear layers over L^2 / (6 * width) tokens: 1/1536 at a
width of 256.
"""

BLOCK_SIZE = 128
"""Side of a block of FlexAttention's mask."""


@dataclass(frozen=True)
class TokenBatch:
    """Tokens in the model's input, and the position that predicts each scored token."""

    ids_RL: Tensor
    position_ids_RL: Tensor
    """Depth of each position in its row."""
    subtree_end_RL: Tensor
    """One past the last position that may attend to this one; a padding position is its own tree."""
    sources_N: Tensor
    """Flat position (row * L + position) whose prediction scores the token."""
    targets_N: Tensor
    """The scored tokens."""
    scored_idx_BT: Tensor
    """For each row and t, the index of token t+1 among the N scored ones; N where nothing is scored."""
    num_tokens: int
    """Tokens of all rows as given."""
    num_distinct: int
    """Tokens in the batch: shared ones once."""
    longest: int
    """Tokens of the longest row."""
    calls: tuple[AttentionCall, ...] = ()
    """The attention calls over a packed row; empty where rows are padded."""
    output_idx_L: Tensor | None = None
    """Each position's index in the calls' outputs, end to end."""
    block_sparse: bool = False
    """Whether the prefix tree is for one attention call under a block-sparse mask."""

    @property
    def num_positions(self) -> int:
        """Positions that the model computes, padding included."""
        return self.ids_RL.numel()

    @property
    def is_tree(self) -> bool:
        """Whether the rows are packed into prefix trees rather than padded."""
        return self.block_sparse or bool(self.calls)

    def attention_mask(self) -> Tensor:
        """Which positions of a padded batch hold a token, bool, shape (R, L)."""
        return torch.arange(self.ids_RL.shape[1], device=self.ids_RL.device) < self.subtree_end_RL[:, :1]

    def to(self, device: torch.device | str, non_blocking: bool = False) -> "TokenBatch":
        """The batch on a device; accelerate calls this."""
        return self._map_tensors(lambda tensor: tensor.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "TokenBatch":
        """The batch in page-locked memory, for copies to a GPU in the background; torch's DataLoader calls this."""
        return self._map_tensors(lambda tensor: tensor.pin_memory())

    def _map_tensors(self, change: Callable[[Tensor], Tensor]) -> "TokenBatch":
        tensors = {name: change(value) for name, value in vars(self).items() if isinstance(value, Tensor)}
        return replace(self, **tensors, calls=tuple(call.map_tensors(change) for call in self.calls))  # type: ignore[arg-type]


@dataclass
class _Tree:
    """One tree in preorder."""

    ids: list[int]
    position_ids: list[int]
    subtree_ends: list[int]
    paths: dict[int, TreePath]
    """Row index -> the positions of its tokens."""


def padded_batch(rows: Sequence[Encoded]) -> TokenBatch:
    """Each row for itself, padded on the right to the longest; identical rows are one."""
    same: dict[tuple[int, ...], list[int]] = {}
    for index, row in enumerate(rows):
        same.setdefault((*row.prompt_ids, *row.response_ids), []).append(index)
    trees = [_grow([list(text)] * len(indices), indices) for text, indices in same.items()]
    width = max(len(tree.ids) for tree in trees)
    return _assemble(rows, trees, starts=range(0, width * len(trees), width), shape=(len(trees), width))[0]


def prefix_tree_batch(
    rows: Sequence[Encoded], *, mask_cost: float = MASK_COST, block_sparse: bool = False
) -> TokenBatch:
    """Pack rows into prefix trees, all in one row.

    Args:
        rows: prompts and responses as tokens; identical rows share everything.
        mask_cost: cost of one mask entry in token equivalents; 0 shares whatever can be shared.
        block_sparse: for a block-sparse mask, which skips hidden blocks: share everything, and round the row's length
            up to one of few lengths, so that compiled code is reused.
    """
    texts = [row.prompt_ids + row.response_ids for row in rows]
    order = sorted(range(len(rows)), key=lambda index: texts[index])
    groups = _groups(texts, order, 0.0 if block_sparse else mask_cost)
    trees = [_grow([texts[index] for index in group], group) for group in groups]
    starts = np.cumsum([0, *(len(tree.ids) for tree in trees)]).tolist()
    width = rounded_up(starts[-1]) if block_sparse else starts[-1]
    batch, paths = _assemble(rows, trees, starts=starts[:-1], shape=(1, width))
    if block_sparse:
        return replace(batch, block_sparse=True)
    calls, output_idx = plan_calls(paths)
    return replace(batch, calls=calls, output_idx_L=torch.from_numpy(output_idx))


def rounded_up(size: int) -> int:
    """The next of few lengths: a multiple of BLOCK_SIZE, at most an eighth above the size from 1,024 positions on.

    Two blocks at least: torch.compile specialises on a size of one.
    """
    step = max(BLOCK_SIZE, 1 << max(0, size.bit_length() - 4))
    return max(-(-size // step) * step, 2 * BLOCK_SIZE)


def _groups(texts: Sequence[list[int]], order: Sequence[int], mask_cost: float) -> list[list[int]]:
    """Row indices in sorted order, cut where sharing costs more mask entries than it saves tokens."""
    groups: list[list[int]] = []
    for index in order:
        length = len(texts[index])
        shared = common_prefix(texts[groups[-1][-1]], texts[index]) if groups else 0
        extra_mask = (length - shared) * length - length**2 / 2  # a causal call skips the hidden half
        if shared > max(0.0, mask_cost * extra_mask):
            groups[-1].append(index)
        else:
            groups.append([index])
    return groups


def _grow(texts: Sequence[list[int]], row_indices: Sequence[int]) -> _Tree:
    """The tree of texts in sorted order: each adds the tokens that it does not share with the one before."""
    tree = _Tree([], [], [], {})
    path: list[int] = []
    previous: list[int] = []
    for text, row in zip(texts, row_indices, strict=True):
        shared = common_prefix(previous, text)
        for position in path[shared:]:
            tree.subtree_ends[position] = len(tree.ids)
        start = len(tree.ids)
        tree.ids += text[shared:]
        tree.position_ids += range(shared, len(text))
        tree.subtree_ends += [0] * (len(text) - shared)
        path = path[:shared] + list(range(start, len(tree.ids)))
        previous = text
        tree.paths[row] = TreePath(np.array(path, dtype=np.int64), shared)
    for position in path:
        tree.subtree_ends[position] = len(tree.ids)
    return tree


def _assemble(
    rows: Sequence[Encoded], trees: Sequence[_Tree], *, starts: Sequence[int], shape: tuple[int, int]
) -> tuple[TokenBatch, list[TreePath]]:
    """Trees at their flat starts, and the rows' paths there.

    Positions between trees are padding: each sees itself alone, so any token fills it.
    """
    size, width = shape[0] * shape[1], shape[1]
    ids, position_ids = np.zeros(size, dtype=np.int64), np.zeros(size, dtype=np.int64)
    ends = np.arange(size) % width + 1
    path_of: dict[int, TreePath] = {}
    for start, tree in zip(starts, trees, strict=True):
        stop = start + len(tree.ids)
        ids[start:stop] = tree.ids
        position_ids[start:stop] = tree.position_ids
        ends[start:stop] = np.array(tree.subtree_ends) + start % width
        path_of |= {row: TreePath(start + path.positions, path.num_shared) for row, path in tree.paths.items()}
    paths = [path_of[row] for row in range(len(rows))]
    sources, targets, scored_idx = _targets(rows, [path.positions for path in paths], ids)
    batch = TokenBatch(
        ids_RL=torch.from_numpy(ids.reshape(shape)),
        position_ids_RL=torch.from_numpy(position_ids.reshape(shape)),
        subtree_end_RL=torch.from_numpy(ends.reshape(shape)),
        sources_N=torch.from_numpy(sources),
        targets_N=torch.from_numpy(targets),
        scored_idx_BT=torch.from_numpy(scored_idx),
        num_tokens=sum(len(path.positions) for path in paths),
        num_distinct=sum(len(tree.ids) for tree in trees),
        longest=max(len(path.positions) for path in paths),
    )
    return batch, paths


def _targets(rows: Sequence[Encoded], paths: Sequence[Ints], ids: Ints) -> tuple[Ints, Ints, Ints]:
    """(sources, targets, scored_idx) as in TokenBatch: a token that several rows score is scored once."""
    starts = [len(row.prompt_ids) for row in rows]
    scored = np.unique(np.concatenate([path[start:] for path, start in zip(paths, starts, strict=True)]))
    source_of = np.zeros(ids.size, dtype=np.int64)
    longest = max(len(path) for path in paths)
    scored_idx = np.full((len(rows), max(longest - 1, 1)), len(scored), dtype=np.int64)
    for row, (path, start) in enumerate(zip(paths, starts, strict=True)):
        assert start > 0, "a response needs a token before it"
        source_of[path[start:]] = path[start - 1 : -1]
        scored_idx[row, start - 1 : len(path) - 1] = np.searchsorted(scored, path[start:])
    return source_of[scored], ids[scored], scored_idx
