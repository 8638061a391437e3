"""Attention of many samples that continue shared prefixes: a prefix's keys and values lie in memory once.

Every branch (one sample) sees the first `depth` tokens of its prefix and its own tokens. All branches of a prefix
attend to it in one matrix product, instead of each reading a copy of it.

Shape letters: L branches, B prefixes, N branches of the prefix that has most, W prefix tokens, T own tokens,
H key-value heads, G queries a key-value head, D head width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

from alignlab.engine.attention import attention_implementation, require_plain_attention, soft_capped

_NAME = "alignlab_shared_prefixes"


class BranchIndex:
    """The prefix that each branch continues, its depth, and its number of own tokens.

    Args:
        prefixes: number of prefixes, B.
        prefix_L: row of each branch's prefix.
        depth_L: tokens of the prefix that the branch attends to.
        steps_L: own tokens with keys in the cache; a forward adds one.
        longest: most own tokens that a branch can have.
    """

    def __init__(self, *, prefixes: int, prefix_L: Tensor, depth_L: Tensor, steps_L: Tensor, longest: int) -> None:
        self.depth_L, self.steps_L, self.longest = depth_L, steps_L, longest
        counts_B = torch.bincount(prefix_L, minlength=prefixes)
        order_L = torch.argsort(prefix_L, stable=True)
        ranks_L = (
            torch.arange(len(prefix_L), device=prefix_L.device) - (counts_B.cumsum(0) - counts_B)[prefix_L[order_L]]
        )
        most = int(counts_B.max())
        self._grid_BN = torch.zeros(prefixes, most, dtype=torch.long, device=prefix_L.device)
        """Branch indices by prefix, padded with branch 0, whose extra results are not used."""
        self._grid_BN[prefix_L[order_L], ranks_L] = order_L
        self._position_L = torch.empty_like(order_L)
        """Index of each branch in the flattened grid."""
        self._position_L[order_L] = prefix_L[order_L] * most + ranks_L
        in_order = bool((order_L == torch.arange(len(order_L), device=order_L.device)).all())
        self._is_full = in_order and len(order_L) == prefixes * most
        self.width = int(steps_L.max()) + 1
        """Own tokens after the forward that is under way, T."""
        self._hidden: dict[tuple[int, int | None], Tensor] = {}

    def advance(self) -> None:
        """Count the forward's new token. A branch that has ended overwrites its last one, which nothing uses."""
        self.steps_L.add_(1).clamp_(max=self.longest - 1)
        self.width = min(self.width + 1, self.longest)
        self._hidden.clear()

    def to_grid(self, branches: Tensor) -> Tensor:
        """(L, ...) -> (B, N, ...)."""
        return branches.view(*self._grid_BN.shape, *branches.shape[1:]) if self._is_full else branches[self._grid_BN]

    def to_branches(self, grid: Tensor) -> Tensor:
        """(B, N, ...) -> (L, ...)."""
        flat = grid.flatten(0, 1)
        return flat if self._is_full else flat[self._position_L]

    def hidden(self, prefix_width: int, window: int | None) -> Tensor:
        """Mask of the prefix and own tokens that a branch does not attend to, bool of shape (L, 1, 1, W + T).

        Args:
            prefix_width: W.
            window: a sliding window's size in tokens; None sees everything.
        """
        if (prefix_width, window) not in self._hidden:
            positions_W = torch.arange(prefix_width, device=self.depth_L.device)
            own_T = torch.arange(self.width, device=self.depth_L.device)
            prefix = positions_W >= self.depth_L[:, None]
            own = own_T > self.steps_L[:, None]
            if window is not None:
                first_L1 = (self.depth_L + self.steps_L - window + 1)[:, None]
                prefix |= positions_W < first_L1
                own |= own_T + self.depth_L[:, None] < first_L1
            self._hidden[prefix_width, window] = torch.cat([prefix, own], dim=1)[:, None, None]
        return self._hidden[prefix_width, window]


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values: the prefixes' once, and each branch's own tokens.

    Args:
        prefix: keys and values of the prefixes, (B, H, W, D) each.
        own: keys and values of own tokens, allocated for the longest branch, (L, H, longest, D) each.
        index: the prefix of each branch.
    """

    def __init__(self, prefix: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], index: BranchIndex) -> None:
        super().__init__()
        self.prefix, self.own, self.index = prefix, own, index

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Append the branches' new token, (L, H, 1, D); return their own tokens so far, (L, H, T, D) each."""
        branches = torch.arange(len(key_states), device=key_states.device)
        for side, states in zip(self.own, (key_states, value_states), strict=True):
            side[branches, :, self.index.steps_L] = states[:, :, 0]
        return self.own[0][:, :, : self.index.width], self.own[1][:, :, : self.index.width]

    def get_seq_length(self) -> int:
        """Unused: positions are always given."""
        return 0


class SharedCache(Cache):  # type: ignore[misc]
    """The cache of all branches that decode together."""

    def __init__(self, layers: list[SharedLayer], index: BranchIndex) -> None:
        super().__init__(layers=layers)
        self.index = index

    @classmethod
    def regrown(
        cls,
        old: "SharedCache | None",
        read: Sequence[DynamicCache],
        *,
        index: BranchIndex,
        kept_branches: list[int],
        kept_prefixes: list[int],
    ) -> "SharedCache":
        """Keep some branches and prefixes of a cache, and append new prefixes with memory for their branches.

        Args:
            old: the cache so far.
            read: keys and values of the new prefixes.
            index: the branches from now on, kept ones first.
            kept_branches: their indices in the old cache.
            kept_prefixes: their indices in the old cache.
        """
        layers = []
        for number in range(len(read[0].layers if old is None else old.layers)):
            layer = None if old is None else old.layers[number]
            prefixes = [] if layer is None else [[side[kept_prefixes] for side in layer.prefix]]
            prefixes += [[cache.layers[number].keys, cache.layers[number].values] for cache in read]
            stacked = [_stack(sides) for sides in zip(*prefixes, strict=True)]
            own = [_zeros(len(index.depth_L), index.longest, side) for side in stacked]
            if layer is not None and old is not None:
                for side, former in zip(own, layer.own, strict=True):
                    side[: len(kept_branches), :, : old.index.width] = former[kept_branches, :, : old.index.width]
            layers.append(SharedLayer((stacked[0], stacked[1]), (own[0], own[1]), index))
        return cls(layers, index)


def _stack(parts_BHWD: Sequence[Tensor]) -> Tensor:
    """Prefixes of different lengths as one batch."""
    width = max(part.shape[2] for part in parts_BHWD)
    padded = [torch.nn.functional.pad(part, (0, 0, 0, width - part.shape[2])) for part in parts_BHWD]
    return padded[0] if len(padded) == 1 else torch.cat(padded)


def _zeros(branches: int, longest: int, like_BHWD: Tensor) -> Tensor:
    _, heads, _, size = like_BHWD.shape
    return like_BHWD.new_zeros(branches, heads, longest, size)  # what is masked must still be finite


def _attend(
    module: Any,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    shared_prefixes: SharedCache,
    scaling: float | None = None,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Transformers' attention interface, one query a branch: query (L, H * G, 1, D), own key and value (L, H, T, D).

    Raises:
        NotImplementedError: for attention with sinks or position biases; the caller then computes each prefix apart.
    """
    require_plain_attention(s_aux, position_bias)
    layer, index = shared_prefixes.layers[module.layer_idx], shared_prefixes.index
    branches, heads, _, size = key.shape
    query_LHGD = query.reshape(branches, heads, -1, size)
    prefix_LHGW = _by_prefix(query_LHGD, layer.prefix[0].transpose(2, 3), index)
    own_LHGT = query_LHGD @ key.transpose(2, 3)
    scores = torch.cat([prefix_LHGW, own_LHGT], dim=-1) * (size**-0.5 if scaling is None else scaling)
    scores = soft_capped(scores, softcap)
    width = prefix_LHGW.shape[-1]
    scores = scores.masked_fill(index.hidden(width, sliding_window), -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed_LHGD = _by_prefix(weights[..., :width], layer.prefix[1], index) + weights[..., width:] @ value
    return mixed_LHGD.reshape(branches, 1, -1, value.shape[-1]), None


def _by_prefix(rows_LHGX: Tensor, matrices_BHXY: Tensor, index: BranchIndex) -> Tensor:
    """Multiply each branch's rows by its prefix's matrix, one product a prefix and head; (L, H, G, Y)."""
    group = rows_LHGX.shape[2]
    grid_BHMX = index.to_grid(rows_LHGX).transpose(1, 2).flatten(2, 3)
    product_BHMY = grid_BHMX @ matrices_BHXY
    prefixes, heads, rows, size = product_BHMY.shape
    return index.to_branches(product_BHMY.view(prefixes, heads, rows // group, group, size).transpose(1, 2))


AttentionInterface.register(_NAME, _attend)


@contextmanager
def shared_attention(inner: Any) -> Iterator[None]:
    """Let the model attend to a SharedCache, given to its forward as `past_key_values` and `shared_prefixes`."""
    with attention_implementation(inner, _NAME):
        yield
