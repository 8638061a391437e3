"""Attention over a forest, through transformers' attention interface: each slot sees its ancestors alone.

On a GPU one FlexAttention call under a block-sparse mask; elsewhere a few calls over rows of like size, see
`alignlab.engine.scoring.attention_calls`. Both know sliding windows and capped scores, which models pass along.

Shape letters: L slots, H heads, D width of a head; B rows of a call, Q new slots, K slots of a path. In `block_mask`
K counts blocks of BLOCK_SLOTS = S slots.
"""

import importlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv

from alignlab.engine.scoring.layout import BLOCK_SLOTS, Layout

FOREST = "alignlab_forest"
"""This attention's name in transformers' table."""


VARIANTS = 64
"""Of FlexAttention that torch may compile. One is needed for each window, with and without gradients, with and without
autocast, in the probe's size and the others; torch's own limit is 8, and beyond it all scores would lie in memory."""


def allow_variants() -> None:
    """Raises torch's limit to VARIANTS."""
    settings: Any = importlib.import_module("torch._dynamo.config")
    settings.recompile_limit = max(settings.recompile_limit, VARIANTS)


class Forest:
    """Who sees whom in a packed row, in the forms that attention takes; each is made once a forward.

    Args:
        layout: the packed row, on the model's device.
    """

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self._made: dict[Any, Any] = {}

    def window(self, asked: int | None) -> int | None:
        """A sliding window, or None where every row is shorter, so that it hides nothing."""
        return asked if asked is not None and asked < self.layout.longest else None

    def block_mask(self, window: int | None) -> BlockMask:
        """FlexAttention's mask over the whole row."""
        if window not in self._made:
            self._made[window] = block_mask(self.layout.ends_RL[0], self.layout.positions_RL[0], window)
        mask: BlockMask = self._made[window]
        return mask

    def masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """What each read adds to its scores, 0 or -inf, shape (B, 1, Q, K); None where it is plainly causal."""
        if (window, dtype) not in self._made:
            self._made[window, dtype] = [
                None if read.is_causal and window is None else _added(read.seen(window), dtype)
                for read in self.layout.reads
            ]
        masks: list[Tensor | None] = self._made[window, dtype]
        return masks


def _added(seen: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)


def block_mask(ends_L: Tensor, positions_L: Tensor, window: int | None) -> BlockMask:
    """The forest's mask for FlexAttention, from the ends of each block alone: no L x L mask is ever made.

    An earlier block is seen where one of its slots ends behind the asking block's start, and wholly where all end
    behind its stop. A window hides more; it leaves every seen block to the comparison slot by slot.
    """
    num_blocks = len(ends_L) // BLOCK_SLOTS
    ends_KS = ends_L.view(num_blocks, BLOCK_SLOTS)
    blocks_K = torch.arange(num_blocks, device=ends_L.device)
    earlier_KK = blocks_K[None, :] < blocks_K[:, None]
    seen_KK = earlier_KK & (ends_KS.amax(1)[None, :] > blocks_K[:, None] * BLOCK_SLOTS)
    whole_KK = earlier_KK & (ends_KS.amin(1)[None, :] >= (blocks_K[:, None] + 1) * BLOCK_SLOTS) & (window is None)
    partly_KK = (seen_KK & ~whole_KK) | torch.eye(num_blocks, dtype=torch.bool, device=ends_L.device)

    def sees(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        ancestor = (k <= q) & (q < ends_L[k])
        return ancestor if window is None else ancestor & (positions_L[q] - positions_L[k] < window)

    return BlockMask.from_kv_blocks(*_listed(partly_KK), *_listed(whole_KK), BLOCK_SIZE=BLOCK_SLOTS, mask_mod=sees)


def _listed(blocks_KK: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks how many are set, and their numbers first, as FlexAttention counts them."""
    order = blocks_KK.to(torch.int32).argsort(dim=1, descending=True, stable=True)
    return blocks_KK.sum(1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]


def forest_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    forest: Forest | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer, shape (1, L, H, D). Dropout is off: policy and reference take one path.

    Raises:
        NotImplementedError: outside a forest, or for attention sinks and position biases.
    """
    if forest is None or s_aux is not None or position_bias is not None:
        raise NotImplementedError("only plain attention over a forest")
    layout, window = forest.layout, forest.window(sliding_window)
    if layout.in_blocks:
        blocks = forest.block_mask(window)
        return flex_attention_forward(module, query, key, value, blocks, scaling=scaling, softcap=softcap)[0], None
    asking = [read.asking_BQ for read in layout.reads]
    seen = [read.seen_BK for read in layout.reads]
    queries, keys, values = _picked(query, asking), _picked(key, seen), _picked(value, seen)
    masks = forest.masks(window, query.dtype)
    answers = [
        _attend(*parts, scaling, softcap).flatten(0, 1) for parts in zip(queries, keys, values, masks, strict=True)
    ]
    assert layout.places_L is not None
    return torch.cat(answers).index_select(0, layout.places_L)[None], None


def _picked(heads_1HLD: Tensor, slots: Sequence[Tensor]) -> list[Tensor]:
    """What lies at the slots of each call, shape (B, Q or K, H, D).

    All in one, and by index_select: its gradient is one index_add, ten times as fast on a CPU as that of indexing.
    """
    heads, length, width = heads_1HLD.shape[1:]
    rows_LE = heads_1HLD[0].transpose(0, 1).reshape(length, heads * width)
    picked = rows_LE.index_select(0, torch.cat([places.flatten() for places in slots]))
    parts = torch.split(picked, [places.numel() for places in slots])
    return [part.view(*places.shape, heads, width) for part, places in zip(parts, slots, strict=True)]


def _attend(
    query_BQHD: Tensor,
    key_BKHD: Tensor,
    value_BKHD: Tensor,
    mask: Tensor | None,
    scale: float | None,
    cap: float | None,
) -> Tensor:
    """Plain attention, causal where no mask says otherwise, shape (B, Q, H, D)."""
    groups = query_BQHD.shape[2] // key_BKHD.shape[2]
    q, k, v = (part.transpose(1, 2) for part in (query_BQHD, key_BKHD, value_BKHD))
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)
    if cap is None:
        attend = nn.functional.scaled_dot_product_attention
        return attend(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale).transpose(1, 2)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        mask = torch.full(scores.shape[2:], -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    scores = cap * torch.tanh(scores / cap) + mask
    answers: Tensor = scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return answers.transpose(1, 2)


@contextmanager
def forest_attended(model: Any, *, forest: bool) -> Iterator[None]:
    """The model with attention over forests, if `forest`; its own attention is put back afterwards.

    Raises:
        NotImplementedError: if the model's attention cannot be replaced.
    """
    if not forest:
        yield
        return
    before = model.config._attn_implementation
    model.set_attn_implementation(FOREST)
    try:
        if model.config._attn_implementation != FOREST:
            raise NotImplementedError("its attention does not go through transformers' interface")
        yield
    finally:
        model.set_attn_implementation(before)


AttentionInterface.register(FOREST, forest_attention)
