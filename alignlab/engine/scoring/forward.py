"""One forward for policy, reference and implicit rewards: a token batch in, log-probabilities of its scored tokens out.

TRL's fused head does the projection, in chunks, with float32 sums. It gets only the positions that predict a scored
token, on every device; prompts, padding and shared tokens are never projected twice.

Shape letters: B rows as given, T tokens of the longest, N scored tokens, V vocabulary; R and L as in `layout`.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any
from weakref import WeakSet

import torch
from torch import Tensor, nn
from trl.trainer import utils as trl_utils
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from alignlab.engine.models import causal_lm, project_only
from alignlab.engine.scoring.attention import TreeMasks, prefix_tree_attention
from alignlab.engine.scoring.cpu import summed_adapters, use_frozen_head
from alignlab.engine.scoring.layout import TokenBatch, padded_batch, prefix_tree_batch
from alignlab.models.prompts import Encoded

LOGGED_FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
"""Per-token values of a log line; other forwards compute the first alone."""

custom_head_models: "WeakSet[nn.Module]" = WeakSet()
"""Models whose logits TRL's fused head does not reproduce, as `alignlab.engine.scoring.probe` finds."""


class BatchLayout(Enum):
    """How rows are laid out in a model's input."""

    PREFIX_TREE_BLOCKS = "packed prefix trees under a block-sparse mask"
    PREFIX_TREE = "packed prefix trees"
    PADDED = "padded batches"

    @property
    def is_tree(self) -> bool:
        """Whether shared prefixes are computed once."""
        return self is not BatchLayout.PADDED


def make_batch(rows: Sequence[Encoded], batch_layout: BatchLayout) -> TokenBatch:
    """Rows in a batch layout."""
    if batch_layout is BatchLayout.PADDED:
        return padded_batch(rows)
    return prefix_tree_batch(rows, block_sparse=batch_layout is BatchLayout.PREFIX_TREE_BLOCKS)


@contextmanager
def engine_layers(model: Any, batch_layout: BatchLayout) -> Iterator[None]:
    """Switch a model to this engine's attention and LoRA layers; leave only after the backward pass."""
    with prefix_tree_attention(causal_lm(model), enabled=batch_layout.is_tree), summed_adapters(model):
        yield


def score_batch(model: Any, batch: TokenBatch, *, use_model_logits: bool = False) -> FusedCausalLMOutput:
    """TRL's per-token outputs of the batch's rows, shape (B, T) each, zero where nothing is scored.

    Args:
        model: a causal language model within `fused_head` and `engine_layers`, wrapped or not.
        batch: the tokens, on the model's device.
        use_model_logits: compute from the model's own logits instead of the fused head.
    """
    inner, targets_1N = causal_lm(model), batch.targets_N[None]
    inputs = model_inputs(batch)
    is_plain_head = isinstance(inner.get_output_embeddings(), nn.Linear) and inner not in custom_head_models
    with project_only(inner.base_model, batch.sources_N):
        if is_plain_head and not use_model_logits:
            output = model(**inputs, shift_labels=targets_1N, fused_lm_head=True)
        else:
            output = _from_logits(model(**inputs).logits, targets_1N)
    rows = {name: _to_rows(getattr(output, name), batch.scored_idx_BT) for name in LOGGED_FIELDS}
    return FusedCausalLMOutput(**rows)


def model_inputs(batch: TokenBatch) -> dict[str, Any]:
    """Arguments of a model's forward over a batch; a prefix tree needs `engine_layers`."""
    inputs = {"input_ids": batch.ids_RL, "position_ids": batch.position_ids_RL, "use_cache": False}
    return inputs | ({"tree": TreeMasks(batch)} if batch.is_tree else {"attention_mask": batch.attention_mask()})


def _from_logits(logits_1NV: Tensor, targets_1N: Tensor) -> FusedCausalLMOutput:
    """TRL's outputs from logits, for heads that carry an adapter or change logits in their own way."""
    logits_1NV = logits_1NV.float()
    logps_1NV = torch.log_softmax(logits_1NV, dim=-1)
    return FusedCausalLMOutput(
        log_probs=logps_1NV.gather(-1, targets_1N[..., None])[..., 0],
        entropy=-(logps_1NV.exp() * logps_1NV).sum(-1),
        mean_logits=logits_1NV.mean(-1),
        is_top1=logits_1NV.argmax(-1) == targets_1N,
    )


def _to_rows(values_1N: Tensor | None, scored_idx_BT: Tensor) -> Tensor | None:
    """Spread the scored tokens' values over the rows; index N is zero."""
    if values_1N is None:
        return None
    padded = torch.cat([values_1N[0], values_1N.new_zeros(1)])
    return padded[scored_idx_BT]


@contextmanager
def fused_head(model: Any, fields: tuple[str, ...] = ("log_probs",)) -> Iterator[None]:
    """Patch a model instance with TRL's fused head; remove the patch on exit.

    TRL's Triton kernel is bypassed: on a GPU it would look for the labelled positions, and so synchronise; here all
    positions are labelled.

    Args:
        model: a causal language model, wrapped or not.
        fields: the per-token values to compute, of LOGGED_FIELDS.
    """
    inner = causal_lm(model)
    before = inner.__dict__.pop("forward", None)
    add_fused_lm_head(inner, outputs=fields)
    use_frozen_head(inner, fields)
    use_triton = trl_utils._use_triton
    trl_utils._use_triton = lambda device: False
    try:
        yield
    finally:
        trl_utils._use_triton = use_triton
        inner.__dict__.pop("forward", None)
        if before is not None:
            inner.forward = before
