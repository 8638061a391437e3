"""Attention over a packed prefix tree: each position sees its ancestors alone.

On a GPU one FlexAttention call under a block-sparse mask; elsewhere a few SDPA calls over rows of similar size, see
`alignlab.engine.scoring.attention_calls`. Both handle the sliding windows and capped scores that models pass along.

Shape letters: L positions, H heads, D width of a head; B rows of a call, Q query positions, K key positions. In
`block_mask` K counts blocks of BLOCK_SIZE = S positions.
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

from alignlab.engine.attention import attention_implementation, require_plain_attention, soft_capped
from alignlab.engine.scoring.layout import BLOCK_SIZE, TokenBatch

PREFIX_TREE_ATTENTION = "alignlab_prefix_tree"
"""This attention's name in transformers' table."""

COMPILE_LIMIT = 64
"""FlexAttention variants that torch may compile: one for each window, with and without gradients, with and without
autocast, in the probe's size and the others. torch's own limit is 8, beyond which all scores would lie in memory."""


def raise_compile_limit() -> None:
    """Raise torch's recompilation limit to COMPILE_LIMIT."""
    settings: Any = importlib.import_module("torch._dynamo.config")
    settings.recompile_limit = max(settings.recompile_limit, COMPILE_LIMIT)


class TreeMasks:
    """Masks of one packed prefix tree, each made once a forward.

    Args:
        batch: the packed row, on the model's device.
    """

    def __init__(self, batch: TokenBatch) -> None:
        self.batch = batch
        self._made: dict[Any, Any] = {}

    def window(self, size: int | None) -> int | None:
        """The sliding window's size, or None where every row is shorter and the window hides nothing."""
        return size if size is not None and size < self.batch.longest else None

    def block_mask(self, window: int | None) -> BlockMask:
        """FlexAttention's mask over the whole row."""
        if window not in self._made:
            self._made[window] = block_mask(self.batch.subtree_end_RL[0], self.batch.position_ids_RL[0], window)
        mask: BlockMask = self._made[window]
        return mask

    def additive_masks(self, window: int | None, dtype: torch.dtype) -> list[Tensor | None]:
        """A mask for each attention call, 0 or -inf, shape (B, 1, Q, K); None where it is plainly causal."""
        if (window, dtype) not in self._made:
            self._made[window, dtype] = [
                None if call.is_causal and window is None else _additive(call.visible(window), dtype)
                for call in self.batch.calls
            ]
        masks: list[Tensor | None] = self._made[window, dtype]
        return masks


def _additive(visible: Tensor, dtype: torch.dtype) -> Tensor:
    return torch.zeros(visible.shape, dtype=dtype, device=visible.device).masked_fill(~visible, -torch.inf)


def block_mask(subtree_end_L: Tensor, position_ids_L: Tensor, window: int | None) -> BlockMask:
    """The prefix tree's mask for FlexAttention, without ever making an L x L mask.

    An earlier block is visible if one of its subtrees reaches into the query's block, and fully visible if all of them
    reach to its end. A window hides more; fully visible blocks are then compared position by position too.

    Args:
        subtree_end_L: one past the last position that may attend to each position; L is a multiple of BLOCK_SIZE.
        position_ids_L: each position's depth in its row.
        window: a sliding window's size in tokens, or None.
    """
    num_blocks = len(subtree_end_L) // BLOCK_SIZE
    ends_KS = subtree_end_L.view(num_blocks, BLOCK_SIZE)
    blocks_K = torch.arange(num_blocks, device=subtree_end_L.device)
    earlier_KK = blocks_K[None, :] < blocks_K[:, None]
    visible_KK = earlier_KK & (ends_KS.amax(1)[None, :] > blocks_K[:, None] * BLOCK_SIZE)
    full_KK = earlier_KK & (ends_KS.amin(1)[None, :] >= (blocks_K[:, None] + 1) * BLOCK_SIZE) & (window is None)
    partial_KK = (visible_KK & ~full_KK) | torch.eye(num_blocks, dtype=torch.bool, device=subtree_end_L.device)

    def sees(_batch: Tensor, _head: Tensor, q: Tensor, k: Tensor) -> Tensor:
        ancestor = (k <= q) & (q < subtree_end_L[k])
        return ancestor if window is None else ancestor & (position_ids_L[q] - position_ids_L[k] < window)

    return BlockMask.from_kv_blocks(
        *_block_lists(partial_KK), *_block_lists(full_KK), BLOCK_SIZE=BLOCK_SIZE, mask_mod=sees
    )


def _block_lists(blocks_KK: Tensor) -> tuple[Tensor, Tensor]:
    """For each row of blocks the number that are set, and their indices first, as FlexAttention wants them."""
    order = blocks_KK.to(torch.int32).argsort(dim=1, descending=True, stable=True)
    return blocks_KK.sum(1, dtype=torch.int32)[None, None], order.to(torch.int32)[None, None]


def attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    tree: TreeMasks | None = None,
    scaling: float | None = None,
    softcap: float | None = None,
    sliding_window: int | None = None,
    s_aux: Tensor | None = None,
    position_bias: Tensor | None = None,
    **_: Any,
) -> tuple[Tensor, None]:
    """Attention of one layer in transformers' interface, shape (1, L, H, D). Dropout is off in every forward.

    Args:
        module: the attention layer.
        query: shape (1, H, L, D).
        key: shape (1, H / groups, L, D).
        value: shape (1, H / groups, L, D).
        attention_mask: ignored; the tree has its own.
        tree: the packed prefix tree's masks.
        scaling: factor of the scores; None is D ** -0.5.
        softcap: see `soft_capped`.
        sliding_window: size in tokens, or None.
        s_aux: refused, see `require_plain_attention`.
        position_bias: refused likewise.

    Raises:
        NotImplementedError: without a tree, or for attention sinks and position biases.
    """
    if tree is None:
        raise NotImplementedError("prefix-tree attention needs a packed prefix tree")
    require_plain_attention(s_aux, position_bias)
    batch, window = tree.batch, tree.window(sliding_window)
    if batch.block_sparse:
        blocks = tree.block_mask(window)
        return flex_attention_forward(module, query, key, value, blocks, scaling=scaling, softcap=softcap)[0], None
    query_idx = [call.query_idx_BQ for call in batch.calls]
    key_idx = [call.key_idx_BK for call in batch.calls]
    queries, keys, values = _gathered(query, query_idx), _gathered(key, key_idx), _gathered(value, key_idx)
    masks = tree.additive_masks(window, query.dtype)
    outputs = [
        _attend_call(*parts, scaling, softcap).flatten(0, 1) for parts in zip(queries, keys, values, masks, strict=True)
    ]
    assert batch.output_idx_L is not None
    return torch.cat(outputs).index_select(0, batch.output_idx_L)[None], None


def _gathered(heads_1HLD: Tensor, idx: Sequence[Tensor]) -> list[Tensor]:
    """The states at each call's positions, shape (B, Q or K, H, D).

    All in one, and by index_select: its gradient is one index_add, ten times as fast on a CPU as that of indexing.
    """
    heads, length, width = heads_1HLD.shape[1:]
    rows_LE = heads_1HLD[0].transpose(0, 1).reshape(length, heads * width)
    gathered = rows_LE.index_select(0, torch.cat([part.flatten() for part in idx]))
    parts = torch.split(gathered, [part.numel() for part in idx])
    return [part.view(*of.shape, heads, width) for part, of in zip(parts, idx, strict=True)]


def _attend_call(
    query_BQHD: Tensor,
    key_BKHD: Tensor,
    value_BKHD: Tensor,
    mask: Tensor | None,
    scale: float | None,
    cap: float | None,
) -> Tensor:
    """Attention of one call, causal where there is no mask, shape (B, Q, H, D)."""
    groups = query_BQHD.shape[2] // key_BKHD.shape[2]
    q, k, v = (part.transpose(1, 2) for part in (query_BQHD, key_BKHD, value_BKHD))
    k, v = repeat_kv(k, groups), repeat_kv(v, groups)
    if cap is None:
        sdpa = nn.functional.scaled_dot_product_attention
        return sdpa(q, k, v, attn_mask=mask, is_causal=mask is None, scale=scale).transpose(1, 2)
    scores = q @ k.transpose(2, 3) * (q.shape[-1] ** -0.5 if scale is None else scale)
    if mask is None:
        mask = torch.full(scores.shape[2:], -torch.inf, dtype=scores.dtype, device=scores.device).triu(1)
    scores = soft_capped(scores, cap) + mask
    outputs: Tensor = scores.softmax(-1, dtype=torch.float32).to(v.dtype) @ v
    return outputs.transpose(1, 2)


@contextmanager
def prefix_tree_attention(model: Any, *, enabled: bool) -> Iterator[None]:
    """Switch a transformers model to prefix-tree attention, if enabled; restore its own on exit.

    Raises:
        NotImplementedError: if the model's attention cannot be replaced.
    """
    if not enabled:
        yield
        return
    with attention_implementation(model, PREFIX_TREE_ATTENTION):
        yield


AttentionInterface.register(PREFIX_TREE_ATTENTION, attend)
