"""Split tree attention into a few batched SDPA calls: queries are a branch's new tokens, keys its path from the root.

Linear layers, embeddings and norms see every distinct token once. Only attention sees rows: in order of depth a row's
path has the ordinary causal mask. Rows of similar size share a call.

Shape letters: L positions of the packed row; B rows of a call, Q query positions, K key positions.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Ints = NDArray[np.int64]

CALL_COST = 4096
"""Cost of one attention call in mask entries; rows are padded into one call while that wastes fewer entries."""


@dataclass(frozen=True)
class AttentionCall:
    """Rows that are attended to in one call."""

    query_idx_BQ: Tensor
    """Positions of the queries; padded with position 0, whose outputs are not used."""
    key_idx_BK: Tensor
    """Positions of the keys, by depth; padded with position 0 behind every query, where the causal mask hides it."""
    query_start_B: Tensor
    """Depth of the first query."""
    is_causal: bool
    """Whether the queries are the whole paths, so that SDPA's causal flag replaces a mask."""

    def map_tensors(self, change: Callable[[Tensor], Tensor]) -> "AttentionCall":
        """The same call with each tensor changed, e.g. moved to a device."""
        tensors = change(self.query_idx_BQ), change(self.key_idx_BK), change(self.query_start_B)
        return AttentionCall(*tensors, self.is_causal)

    def visible(self, window: int | None) -> Tensor:
        """Which key (last axis) each query sees, bool, shape (B, 1, Q, K)."""
        queries = torch.arange(self.query_idx_BQ.shape[1], device=self.query_start_B.device)
        keys = torch.arange(self.key_idx_BK.shape[1], device=self.query_start_B.device)
        distance = (self.query_start_B[:, None] + queries)[:, :, None] - keys
        visible = distance >= 0 if window is None else (distance >= 0) & (distance < window)
        return visible[:, None]


@dataclass(frozen=True)
class TreePath:
    """A row's positions from the root down; the first `num_shared` are computed by an earlier row."""

    positions: Ints
    num_shared: int

    @property
    def num_new(self) -> int:
        """Positions that this row computes."""
        return len(self.positions) - self.num_shared


def plan_calls(paths: Sequence[TreePath]) -> tuple[tuple[AttentionCall, ...], Ints]:
    """Calls that compute every position once, and output_idx (L,): each position's index in their outputs, end to end.

    Args:
        paths: the rows' paths; together their new positions are 0..L-1, each once.
    """
    groups = _group_by_size([path for path in paths if path.num_new])
    calls = tuple(_call(group) for group in groups)
    output_idx = np.zeros(sum(path.num_new for group in groups for path in group), dtype=np.int64)
    start = 0
    for group, call in zip(groups, calls, strict=True):
        width = call.query_idx_BQ.shape[1]
        for path in group:
            output_idx[path.positions[path.num_shared :]] = np.arange(start, start + path.num_new)
            start += width
    return calls, output_idx


def _group_by_size(paths: Sequence[TreePath]) -> list[list[TreePath]]:
    """Paths in groups of similar size; whole paths apart from branches, since they need no mask."""
    groups: list[list[TreePath]] = []
    for is_whole in (True, False):
        wanted = [path for path in paths if (path.num_shared == 0) is is_whole]
        area = widest = 0  # of the open group: with its padding, and its most new positions
        for number, path in enumerate(sorted(wanted, key=lambda path: -len(path.positions))):
            width = max(path.num_new, widest)
            joined = (len(groups[-1]) + 1) * width * len(groups[-1][0].positions) if number else 0
            alone = path.num_new * len(path.positions)
            if number and joined - area - alone < CALL_COST:
                groups[-1].append(path)
                area, widest = joined, width
            else:
                groups.append([path])
                area, widest = alone, path.num_new
    return groups


def _call(group: Sequence[TreePath]) -> AttentionCall:
    query_idx = np.zeros((len(group), max(path.num_new for path in group)), dtype=np.int64)
    key_idx = np.zeros((len(group), max(len(path.positions) for path in group)), dtype=np.int64)
    for row, path in enumerate(group):
        query_idx[row, : path.num_new] = path.positions[path.num_shared :]
        key_idx[row, : len(path.positions)] = path.positions
    starts = np.array([path.num_shared for path in group], dtype=np.int64)
    is_causal = all(path.num_shared == 0 for path in group)
    return AttentionCall(torch.from_numpy(query_idx), torch.from_numpy(key_idx), torch.from_numpy(starts), is_causal)
