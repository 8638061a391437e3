"""One forward for policy, reference and implicit rewards: a layout in, log-probabilities of its scored tokens out.

TRL's fused head does the projection, in chunks, with float32 sums. It is handed only the positions that score a
response token, on every device; prompts, padding and shared tokens are never projected twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from alignlab.models.prompts import Encoded
from alignlab.preference.layout import Layout, forest_layout, padded_layout
from alignlab.runs.progress import say

PROBE_TOLERANCE = 1e-3
"""Greatest difference of a summed log-probability between padded and forest, nats, that is still rounding."""

TOKEN_FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
"""What TRL's trainer reads of each scored token; the reference pass needs the first alone."""


def causal_lm(model: Any) -> Any:
    """The causal language model inside DDP, FSDP or PEFT wrappers."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def score_layout(model: Any, layout: Layout) -> FusedCausalLMOutput:
    """TRL's per-token outputs for the layout's rows, shape (B, T) each, zero where nothing is scored.

    Args:
        model: a causal language model with TRL's fused head, wrapped or not.
        layout: the tokens, on the model's device.
    """
    inner = causal_lm(model)
    inputs = {
        "input_ids": layout.ids_RL,
        "attention_mask": _attention(layout, inner),
        "position_ids": layout.positions_RL,
        "use_cache": False,
    }
    with _only_scored(inner.base_model, layout.sources_N):
        if isinstance(inner.get_output_embeddings(), nn.Linear):
            output = model(**inputs, shift_labels=layout.targets_N[None], fused_lm_head=True)
        else:
            output = _from_logits(model(**inputs).logits, layout.targets_N[None])
    rows = {name: _to_rows(getattr(output, name), layout.entries_BT) for name in TOKEN_FIELDS}
    return FusedCausalLMOutput(**rows, aux_loss=output.aux_loss)


def _from_logits(logits_1NV: Tensor, targets_1N: Tensor) -> FusedCausalLMOutput:
    """TRL's outputs from whole logits: its fused head takes the base weight of a head that carries an adapter."""
    logits_1NV = logits_1NV.float()
    logps_1NV = torch.log_softmax(logits_1NV, dim=-1)
    return FusedCausalLMOutput(
        log_probs=logps_1NV.gather(-1, targets_1N[..., None])[..., 0],
        entropy=-(logps_1NV.exp() * logps_1NV).sum(-1),
        mean_logits=logits_1NV.mean(-1),
        is_top1=logits_1NV.argmax(-1) == targets_1N,
    )


def _attention(layout: Layout, inner: Any) -> Tensor:
    """The mask in the form that the model's attention takes: which tokens are real, or which may see which."""
    if layout.is_causal:
        return layout.real_mask()
    mask = layout.mask()
    if inner.config._attn_implementation != "eager":
        return mask
    lowest = torch.finfo(inner.dtype).min  # eager attention adds its mask to the scores
    return torch.zeros(mask.shape, dtype=inner.dtype, device=mask.device).masked_fill(~mask, lowest)


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
    """The model with TRL's fused head, which is a patch of the instance; the patch is taken off again."""
    inner = causal_lm(model)
    before = inner.__dict__.pop("forward", None)
    add_fused_lm_head(inner, outputs=fields)
    try:
        yield
    finally:
        inner.__dict__.pop("forward", None)
        if before is not None:
            inner.forward = before


def takes_forest(model: Any) -> bool:
    """Whether the model gives a forest the log-probabilities of the padded batch, tried once on one small batch.

    A model whose layers carry state past the mask (recurrent, convolutional, a window shorter than the text) does not;
    its batches are padded, and that is said.
    """
    inner = causal_lm(model)
    if inner not in _tried:
        _tried[inner] = _probe(model)
        if not _tried[inner]:
            say(f"{type(inner).__name__} cannot share prefixes: its batches are padded")
    return _tried[inner]


_tried: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


@torch.no_grad()
def _probe(model: Any) -> bool:
    """One batch both ways; any error of the forest's way counts as a no."""
    vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
    device = next(model.parameters()).device
    shared, left, right = torch.randint(0, vocabulary, (3, 24), generator=torch.Generator().manual_seed(0)).tolist()
    rows = [
        Encoded(shared[:9], shared[9:] + left),
        Encoded(shared[:9], shared[9:16] + right),
        Encoded(shared[:9], shared[9:] + left[:5]),
        Encoded(right[:4], left[:11]),
    ]
    was_training = model.training
    model.eval()
    try:
        with fused_head(model):
            packed = score_layout(model, forest_layout(rows, mask_price=0).to(device)).log_probs.sum(1)
            padded = score_layout(model, padded_layout(rows).to(device)).log_probs.sum(1)
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, NotImplementedError):
        return False
    finally:
        model.train(was_training)
    return bool((packed - padded).abs().max() < PROBE_TOLERANCE * max(1.0, float(padded.abs().max())))


def lay_out(rows: Sequence[Encoded], *, forest: bool) -> Layout:
    """The rows as a forest, or padded where the model cannot take one."""
    return forest_layout(rows) if forest else padded_layout(rows)
