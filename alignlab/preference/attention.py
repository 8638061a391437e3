"""Attention over a forest, through transformers' attention interface: each slot sees its ancestors alone.

On a GPU one FlexAttention call with a block-sparse mask; elsewhere one small call a span, so that neither padding nor
what lies between trees is computed. Both know sliding windows and capped scores, which models pass along.

Shape letters: L slots, H heads, D width of a head, K blocks of BLOCK_SLOTS slots.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention.flex_attention import BlockMask
from transformers import AttentionInterface
from transformers.integrations.flex_attention import flex_attention_forward
from transformers.integrations.sdpa_attention import repeat_kv

from alignlab.preference.layout import BLOCK_SLOTS, Layout, ancestors

FOREST = "alignlab_forest"
"""This attention's name in transformers' table."""


class Forest:
    """Who sees whom in a packed row, in the forms that attention takes; each is made once a forward.

    Args:
        layout: the packed row, on the model's device.
    """

    def __init__(self, layout: Layout) -> None:
        self.ends_L, self.positions_L = layout.ends_RL[0], layout.positions_RL[0]
        self.longest, self.spans, self.in_blocks = layout.longest, layout.spans, layout.in_blocks
        self._made: dict[Any, Any] = {}

    def window(self, asked: int | None) -> int | None:
        """A sliding window, or None where every row is shorter, so that it hides nothing."""
        return asked if asked is not None and asked < self.longest else None

    def block_mask(self, window: int | None) -> BlockMask:
        """FlexAttention's mask over the whole row."""
        if ("blocks", window) not in self._made:
            self._made["blocks", window] = block_mask(self.ends_L, self.positions_L, window)
        mask: BlockMask = self._made["blocks", window]
        return mask

    def masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """What each span adds to its scores, 0 or -inf, shape (1, 1, size, size); None where it is a plain row."""
        if (window, dtype) not in self._made:
            starts = torch.tensor([0, *(span.size for span in self.spans)]).cumsum(0).tolist()
            self._made[window, dtype] = [
                None if span.is_row and window is None else self._added(start, span.size, window, dtype)
                for start, span in zip(starts, self.spans, strict=False)
            ]
        masks: list[Tensor | None] = self._made[window, dtype]
        return masks

    def _added(self, start: int, size: int, window: int | None, dtype: torch.dtype) -> Tensor:
        seen = ancestors(self.ends_L[start : start + size] - start)
        if window is not None:
            depths = self.positions_L[start : start + size]
            seen &= depths[:, None] - depths[None, :] < window
        return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, -torch.inf)[None, None]


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
    window = forest.window(sliding_window)
    if forest.in_blocks:
        mask = forest.block_mask(window)
        return flex_attention_forward(module, query, key, value, mask, scaling=scaling, softcap=softcap)[0], None
    groups = query.shape[1] // key.shape[1]
    key, value = repeat_kv(key, groups), repeat_kv(value, groups)
    sizes = [span.size for span in forest.spans]
    masks = forest.masks(window, query.dtype)
    parts = zip(query.split(sizes, 2), key.split(sizes, 2), value.split(sizes, 2), masks, strict=True)
    return torch.cat([_attend(*part, scaling, softcap).transpose(1, 2) for part in parts], dim=1), None


def _attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, scale: float | None, softcap: float | None) -> Tensor:
    """Plain attention within a span, causal where no mask says otherwise, shape (1, H, size, D)."""
    if softcap is None:
        return nn.functional.scaled_dot_product_attention(
            q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale
        )
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        mask = torch.full(scores.shape[2:], -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    scores = softcap * torch.tanh(scores / softcap) + mask
    return scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v


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
