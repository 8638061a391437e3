"""One forward for policy, reference and implicit rewards: a layout in, log-probabilities of its scored tokens out.

TRL's fused head does the projection, in chunks, with float32 sums. It is handed only the positions that score a
response token, on every device; prompts, padding and shared tokens are never projected twice.
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

from alignlab.engine.scoring.attention import Forest, forest_attended
from alignlab.engine.scoring.head import frozen_head
from alignlab.engine.scoring.layout import Layout, forest_layout, padded_layout
from alignlab.engine.scoring.lora import summed_adapters
from alignlab.models.prompts import Encoded

LOGGED_FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
"""What a log line says of the scored tokens; every other forward needs the first alone."""

own_heads: "WeakSet[nn.Module]" = WeakSet()
"""Models that do with their logits what TRL's fused head does not know of, as `alignlab.engine.scoring.probe` finds."""


class Packing(Enum):
    """How a model is given its rows."""

    BLOCKS = "a forest under a block-sparse mask"
    TREES = "a forest, tree by tree"
    PADDED = "padded"

    @property
    def is_forest(self) -> bool:
        """Whether shared prefixes are computed once."""
        return self is not Packing.PADDED


def lay_out(rows: Sequence[Encoded], packing: Packing) -> Layout:
    """The rows as the model takes them."""
    if packing is Packing.PADDED:
        return padded_layout(rows)
    return forest_layout(rows, in_blocks=packing is Packing.BLOCKS)


def causal_lm(model: Any) -> Any:
    """The causal language model inside DDP, FSDP or PEFT wrappers."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


@contextmanager
def computing(model: Any, packing: Packing) -> Iterator[None]:
    """The model with the attention and the LoRA layers of this engine, until a backward pass is over too."""
    with forest_attended(causal_lm(model), forest=packing.is_forest), summed_adapters(model):
        yield


def score_layout(model: Any, layout: Layout, *, is_own: bool = False) -> FusedCausalLMOutput:
    """TRL's per-token outputs for the layout's rows, shape (B, T) each, zero where nothing is scored.

    Args:
        model: a causal language model with TRL's fused head, wrapped or not, attending as the layout needs.
        layout: the tokens, on the model's device.
        is_own: from the model's own logits, whatever its head.
    """
    inner, targets_1N = causal_lm(model), layout.targets_N[None]
    inputs = {"input_ids": layout.ids_RL, "position_ids": layout.positions_RL, "use_cache": False}
    inputs |= {"forest": Forest(layout)} if layout.is_forest else {"attention_mask": layout.real_mask()}
    with _only_scored(inner.base_model, layout.sources_N):
        if isinstance(inner.get_output_embeddings(), nn.Linear) and inner not in own_heads and not is_own:
            output = model(**inputs, shift_labels=targets_1N, fused_lm_head=True)
        else:
            output = _from_logits(model(**inputs).logits, targets_1N)
    rows = {name: _to_rows(getattr(output, name), layout.entries_BT) for name in LOGGED_FIELDS}
    return FusedCausalLMOutput(**rows)


def _from_logits(logits_1NV: Tensor, targets_1N: Tensor) -> FusedCausalLMOutput:
    """TRL's outputs from whole logits.

    Its fused head takes the base weight of a head that carries an adapter, and knows the usual caps and scales alone.
    """
    logits_1NV = logits_1NV.float()
    logps_1NV = torch.log_softmax(logits_1NV, dim=-1)
    return FusedCausalLMOutput(
        log_probs=logps_1NV.gather(-1, targets_1N[..., None])[..., 0],
        entropy=-(logps_1NV.exp() * logps_1NV).sum(-1),
        mean_logits=logits_1NV.mean(-1),
        is_top1=logits_1NV.argmax(-1) == targets_1N,
    )


def _to_rows(values_1N: Tensor | None, entries_BT: Tensor) -> Tensor | None:
    """Spreads the scored tokens' values over the rows; the last, added entry is zero."""
    if values_1N is None:
        return None
    padded = torch.cat([values_1N[0], values_1N.new_zeros(1)])
    return padded[entries_BT]


@contextmanager
def _only_scored(backbone: nn.Module, sources_N: Tensor) -> Iterator[None]:
    """Lets the head see the scored positions alone, as one row of N."""

    def select(module: nn.Module, arguments: Any, output: Any) -> Any:
        hidden_RLH = output.last_hidden_state
        output.last_hidden_state = hidden_RLH.reshape(-1, hidden_RLH.shape[-1])[sources_N][None]
        return output

    handle = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


@contextmanager
def fused_head(model: Any, fields: tuple[str, ...] = ("log_probs",)) -> Iterator[None]:
    """The model with TRL's fused head, which is a patch of the instance; the patch is taken off again.

    On a GPU that head would look for the labelled positions among those it is given, and so wait for the model; here
    all of them are labelled.
    """
    inner = causal_lm(model)
    before = inner.__dict__.pop("forward", None)
    add_fused_lm_head(inner, outputs=fields)
    looks = trl_utils._use_triton
    trl_utils._use_triton = lambda device: False
    try:
        with frozen_head():
            yield
    finally:
        trl_utils._use_triton = looks
        inner.__dict__.pop("forward", None)
        if before is not None:
            inner.forward = before


@contextmanager
def evaluating(model: Any) -> Iterator[None]:
    """The model without dropout and what else is random in training."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
