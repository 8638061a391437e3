"""Attention of many samples that continue shared prefixes: a prefix's keys and values lie in memory once.

Every sample (lane) sees the first `depth` tokens of its trunk and its own tokens. All lanes of a trunk attend to it in
one matrix product, instead of each reading a copy of it.

Shape letters: L lanes, B trunks, N lanes of the trunk that has most, W trunk tokens, T own tokens, H key-value heads,
G queries a key-value head, D head width.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers import AttentionInterface, Cache, DynamicCache
from transformers.cache_utils import DynamicLayer

_NAME = "alignlab_shared_prefixes"


class Fork:
    """Which trunk each lane continues, from which depth, and how many own tokens it has.

    Args:
        trunks: their number, B.
        trunk_L: each lane's trunk.
        depth_L: how many of its tokens the lane sees.
        steps_L: own tokens whose keys are known; a forward adds one.
        longest: most own tokens that a lane can have.
    """

    def __init__(self, *, trunks: int, trunk_L: Tensor, depth_L: Tensor, steps_L: Tensor, longest: int) -> None:
        self.depth_L, self.steps_L, self.longest = depth_L, steps_L, longest
        counts_B = torch.bincount(trunk_L, minlength=trunks)
        order_L = torch.argsort(trunk_L, stable=True)
        ranks_L = torch.arange(len(trunk_L), device=trunk_L.device) - (counts_B.cumsum(0) - counts_B)[trunk_L[order_L]]
        most = int(counts_B.max())
        self._grid_BN = torch.zeros(trunks, most, dtype=torch.long, device=trunk_L.device)
        """Lane numbers by trunk; where a trunk has fewer lanes lane 0 is repeated, and the result is not read."""
        self._grid_BN[trunk_L[order_L], ranks_L] = order_L
        self._place_L = torch.empty_like(order_L)
        """Where each lane is in the flattened grid."""
        self._place_L[order_L] = trunk_L[order_L] * most + ranks_L
        self._is_full = len(order_L) == trunks * most and bool((order_L == self._place_L).all())
        self.width = int(steps_L.max()) + 1
        """Own tokens after the forward that is under way, T."""
        self._hidden: dict[tuple[int, int | None], Tensor] = {}

    def advance(self) -> None:
        """One forward is over. A lane that has ended stays within its room: its tokens are not read any more."""
        self.steps_L.add_(1).clamp_(max=self.longest - 1)
        self.width = min(self.width + 1, self.longest)
        self._hidden.clear()

    def to_grid(self, lanes: Tensor) -> Tensor:
        """(L, ...) -> (B, N, ...)."""
        return lanes.view(*self._grid_BN.shape, *lanes.shape[1:]) if self._is_full else lanes[self._grid_BN]

    def to_lanes(self, grid: Tensor) -> Tensor:
        """(B, N, ...) -> (L, ...)."""
        flat = grid.flatten(0, 1)
        return flat if self._is_full else flat[self._place_L]

    def hidden(self, trunk_width: int, window: int | None) -> Tensor:
        """What a lane does not see of trunk and own tokens, bool of shape (L, 1, 1, W + T).

        Args:
            trunk_width: W.
            window: a sliding window's size in tokens; None sees everything.
        """
        if (trunk_width, window) not in self._hidden:
            places_W = torch.arange(trunk_width, device=self.depth_L.device)
            own_T = torch.arange(self.width, device=self.depth_L.device)
            trunk = places_W >= self.depth_L[:, None]
            own = own_T > self.steps_L[:, None]
            if window is not None:
                first_L1 = (self.depth_L + self.steps_L - window + 1)[:, None]
                trunk |= places_W < first_L1
                own |= own_T + self.depth_L[:, None] < first_L1
            self._hidden[trunk_width, window] = torch.cat([trunk, own], dim=1)[:, None, None]
        return self._hidden[trunk_width, window]


class SharedLayer(DynamicLayer):  # type: ignore[misc]  # transformers is untyped here
    """One layer's keys and values: the trunks' once, and each lane's own tokens."""

    def __init__(self, trunk: tuple[Tensor, Tensor], own: tuple[Tensor, Tensor], fork: Fork) -> None:
        super().__init__()
        self.trunk = trunk
        """Keys and values, (B, H, W, D) each."""
        self.own = own
        """Keys and values with room for the longest lane, (L, H, longest, D) each."""
        self.fork = fork

    def update(self, key_states: Tensor, value_states: Tensor, *_: Any, **__: Any) -> tuple[Tensor, Tensor]:
        """Adds the lanes' new token, (L, H, 1, D), and gives their own tokens so far, (L, H, T, D)."""
        lanes = torch.arange(len(key_states), device=key_states.device)
        for room, states in zip(self.own, (key_states, value_states), strict=True):
            room[lanes, :, self.fork.steps_L] = states[:, :, 0]
        return self.own[0][:, :, : self.fork.width], self.own[1][:, :, : self.fork.width]

    def get_seq_length(self) -> int:
        """Unused: positions are always given."""
        return 0


class SharedCache(Cache):  # type: ignore[misc]
    """The cache of all lanes that decode together."""

    def __init__(self, layers: list[SharedLayer], fork: Fork) -> None:
        super().__init__(layers=layers)
        self.fork = fork

    @classmethod
    def regrown(
        cls,
        old: "SharedCache | None",
        read: Sequence[DynamicCache],
        *,
        fork: Fork,
        kept_lanes: list[int],
        kept_trunks: list[int],
    ) -> "SharedCache":
        """The kept lanes and trunks of an old cache, behind them newly read trunks and room for their lanes.

        Args:
            old: the cache so far.
            read: keys and values of the new trunks.
            fork: the lanes from now on, kept ones first.
            kept_lanes: their numbers in the old cache.
            kept_trunks: their numbers in the old cache.
        """
        layers = []
        for number in range(len(read[0].layers if old is None else old.layers)):
            layer = None if old is None else old.layers[number]
            trunks = [] if layer is None else [[side[kept_trunks] for side in layer.trunk]]
            trunks += [[cache.layers[number].keys, cache.layers[number].values] for cache in read]
            stacked = [_stack(sides) for sides in zip(*trunks, strict=True)]
            own = [_room(len(fork.depth_L), fork.longest, side) for side in stacked]
            if layer is not None and old is not None:
                for room, former in zip(own, layer.own, strict=True):
                    room[: len(kept_lanes), :, : old.fork.width] = former[kept_lanes, :, : old.fork.width]
            layers.append(SharedLayer((stacked[0], stacked[1]), (own[0], own[1]), fork))
        return cls(layers, fork)


def _stack(parts_BHWD: Sequence[Tensor]) -> Tensor:
    """Trunks of different lengths as one batch."""
    width = max(part.shape[2] for part in parts_BHWD)
    padded = [torch.nn.functional.pad(part, (0, 0, 0, width - part.shape[2])) for part in parts_BHWD]
    return padded[0] if len(padded) == 1 else torch.cat(padded)


def _room(lanes: int, longest: int, like_BHWD: Tensor) -> Tensor:
    _, heads, _, size = like_BHWD.shape
    return like_BHWD.new_zeros(lanes, heads, longest, size)  # what is masked must still be finite


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
    """Transformers' attention interface, for one query a lane: query (L, H * G, 1, D), own key and value (L, H, T, D).

    Raises:
        NotImplementedError: for attention with sinks or position biases; the caller then reads each prefix apart.
    """
    if s_aux is not None or position_bias is not None:
        raise NotImplementedError
    layer, fork = shared_prefixes.layers[module.layer_idx], shared_prefixes.fork
    lanes, heads, _, size = key.shape
    query_LHGD = query.reshape(lanes, heads, -1, size)
    trunk_LHGW = _by_trunk(query_LHGD, layer.trunk[0].transpose(2, 3), fork)
    own_LHGT = query_LHGD @ key.transpose(2, 3)
    scores = torch.cat([trunk_LHGW, own_LHGT], dim=-1) * (size**-0.5 if scaling is None else scaling)
    if softcap is not None:
        scores = torch.tanh(scores / softcap) * softcap
    width = trunk_LHGW.shape[-1]
    scores = scores.masked_fill(fork.hidden(width, sliding_window), -torch.inf)
    weights = torch.softmax(scores, dim=-1, dtype=torch.float32).to(value.dtype)
    mixed_LHGD = _by_trunk(weights[..., :width], layer.trunk[1], fork) + weights[..., width:] @ value
    return mixed_LHGD.reshape(lanes, 1, -1, value.shape[-1]), None


def _by_trunk(rows_LHGX: Tensor, matrices_BHXY: Tensor, fork: Fork) -> Tensor:
    """Each lane's rows times its trunk's matrix, one product a trunk and head, shape (L, H, G, Y)."""
    group = rows_LHGX.shape[2]
    grid_BHMX = fork.to_grid(rows_LHGX).transpose(1, 2).flatten(2, 3)
    product_BHMY = grid_BHMX @ matrices_BHXY
    trunks, heads, rows, size = product_BHMY.shape
    return fork.to_lanes(product_BHMY.view(trunks, heads, rows // group, group, size).transpose(1, 2))


AttentionInterface.register(_NAME, _attend)


@contextmanager
def shared_attention(inner: Any) -> Iterator[None]:
    """Lets the model attend to a SharedCache, given to its forward as `past_key_values` and `shared_prefixes`."""
    before = inner.config._attn_implementation
    inner.config._attn_implementation = _NAME
    try:
        yield
    finally:
        inner.config._attn_implementation = before
