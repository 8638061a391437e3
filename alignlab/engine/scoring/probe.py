"""Detect at start-up which batch layout a model supports, instead of keeping a list of architectures.

One small batch is computed several ways: which layout gives the padded batch's log-probabilities, also for the longest
row, and whether TRL's fused head gives the model's own.
"""

import contextlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignlab.engine.memory import is_out_of_memory
from alignlab.engine.models import causal_lm, device_of, eval_mode
from alignlab.engine.scoring.attention import raise_compile_limit
from alignlab.engine.scoring.forward import (
    BatchLayout,
    custom_head_models,
    engine_layers,
    fused_head,
    make_batch,
    score_batch,
)
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import say

ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)
"""Errors by which models refuse a batch layout."""

LEAST_TOLERANCE = 2e-5
"""Relative; a few times the float32 rounding of another order of sums."""


def detect_batch_layout(model: Any, *, longest: int, autocast: bool = False) -> BatchLayout:
    """The best layout that reproduces the padded batch's log-probabilities, tried on one small batch.

    A model whose layers carry state past the mask (recurrent, convolutional) cannot share prefixes; its batches are
    padded, with a message.

    Args:
        model: a causal language model, wrapped or not.
        longest: tokens of the longest row; what holds for short rows may not hold for long ones. Sharing that works
            for long rows works for shorter ones, and one that fails for short rows fails for longer ones; neither is
            tried again.
        autocast: whether the rows are computed in bfloat16, whatever the weights' type.
    """
    inner = causal_lm(model)
    device_and_precision = (device_of(inner).type, autocast)
    tried = _tried.setdefault(inner, {})
    for (length, *there), batch_layout in tried.items():
        if tuple(there) == device_and_precision and (length >= longest if batch_layout.is_tree else length <= longest):
            return batch_layout
    with torch.autocast(device_and_precision[0], dtype=torch.bfloat16, enabled=autocast):
        tried[longest, *device_and_precision] = _first_that_works(model, longest, autocast)
    return tried[longest, *device_and_precision]


_tried: "WeakKeyDictionary[nn.Module, dict[tuple[int, str, bool], BatchLayout]]" = WeakKeyDictionary()


def _first_that_works(model: Any, longest: int, autocast: bool) -> BatchLayout:
    inner, on_gpu = causal_lm(model), device_of(model).type == "cuda"
    try:
        probe = _Probe(model, longest, torch.bfloat16 if autocast else next(model.parameters()).dtype)
    except ERRORS as error:
        if is_out_of_memory(error):
            raise
        say(f"{type(inner).__name__}: using padded batches; the trial batch failed ({_told(error)})")
        return BatchLayout.PADDED
    if probe.head_differs():
        say(f"{type(inner).__name__}: its logits differ from TRL's fused head; using the model's own")
        custom_head_models.add(inner)
    if on_gpu:
        raise_compile_limit()
        if (objection := probe.objection(BatchLayout.PREFIX_TREE_BLOCKS)) is None:
            return BatchLayout.PREFIX_TREE_BLOCKS
        say(f"{type(inner).__name__}: block-sparse attention disabled ({objection})")
    if (objection := probe.objection(BatchLayout.PREFIX_TREE)) is None:
        return BatchLayout.PREFIX_TREE
    say(f"{type(inner).__name__}: prefix sharing disabled ({objection}); using padded batches")
    return BatchLayout.PADDED


class _Probe:
    """Small batches computed several ways.

    Args:
        model: a causal language model, wrapped or not.
        longest: tokens of the longest row.
        dtype: the type that the model computes in.
    """

    def __init__(self, model: Any, longest: int, dtype: torch.dtype) -> None:
        self.model = model
        vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
        self.short, self.long = _probe_rows(vocabulary, min(longest, 48)), _long_rows(vocabulary, longest)
        self.expected = _probed(model, self.short, BatchLayout.PADDED)
        alone = [_probed(model, [row], BatchLayout.PADDED)[0] for row in self.short]
        noise = _distance(nn.utils.rnn.pad_sequence(alone, batch_first=True), self.expected)
        eps = torch.finfo(dtype).eps
        self.tolerance = max(4 * noise, eps / 4, LEAST_TOLERANCE)
        """In bfloat16 a row's log-probabilities already depend on the batch that it is in."""
        self.head_tolerance = max(self.tolerance, 2 * eps)
        """A model rounds its logits to its own type, TRL's head does not."""

    def head_differs(self) -> bool:
        """Whether TRL's fused head, which knows the usual caps and scales, differs from the model's own logits."""
        own = _probed(self.model, self.short, BatchLayout.PADDED, use_model_logits=True)
        differs = not _distance(self.expected, own) < self.head_tolerance
        if differs:
            self.expected = own
        return differs

    def objection(self, batch_layout: BatchLayout) -> str | None:
        """Why the model does not support the layout, or None; an error is a reason."""
        first = _probed(self.model, self.long[:1], BatchLayout.PADDED)
        try:
            got = [_probed(self.model, rows, batch_layout) for rows in (self.short, self.long)]
            _differentiate(self.model, self.short, batch_layout)
        except ERRORS as error:
            if is_out_of_memory(error):
                raise
            return _told(error)
        for packed, padded in zip(got, (self.expected, first), strict=True):
            difference = _distance(packed[: len(padded)], padded)
            if not difference < self.tolerance:
                return f"log-probs differ by {difference:.1%}"
        return None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _distance(values: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, relative to the expected values'."""
    return float((values - expected).norm() / expected.norm())


def _probe_rows(vocabulary: int, longest: int) -> list[Encoded]:
    """Rows with shared prefixes, one inside another, and one that shares nothing."""
    length = max(longest, 8)
    text, other = torch.randint(0, vocabulary, (2, length), generator=torch.Generator().manual_seed(0)).tolist()
    prompt, branch = length // 4, length // 2
    return [
        Encoded(text[:prompt], text[prompt:]),
        Encoded(text[:prompt], text[prompt:branch] + other[: length // 4]),
        Encoded(text[:prompt], text[prompt : branch + 2]),
        Encoded(other[:2], other[2:branch]),
    ]


def _long_rows(vocabulary: int, longest: int) -> list[Encoded]:
    """The longest row, scored at its end, and one that branches off there: windows hide nothing earlier."""
    length = max(longest, 8)
    text = torch.randint(0, vocabulary, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    prompt = max(1, length - 32)
    return [Encoded(text[:prompt], text[prompt:]), Encoded(text[:prompt], text[prompt:-3] + text[:2])]


@torch.no_grad()
def _probed(
    model: Any, rows: Sequence[Encoded], batch_layout: BatchLayout, *, use_model_logits: bool = False
) -> Tensor:
    """Log-probabilities of the rows' tokens in a layout, (rows, tokens)."""
    batch = make_batch(rows, batch_layout).to(device_of(model))
    head = contextlib.nullcontext() if use_model_logits else fused_head(model)
    with eval_mode(model), head, engine_layers(model, batch_layout):
        logps: Tensor = score_batch(model, batch, use_model_logits=use_model_logits).log_probs
    return logps


def _differentiate(model: Any, rows: Sequence[Encoded], batch_layout: BatchLayout) -> None:
    """Run a backward pass down to the embeddings, leaving every weight's gradient alone."""
    batch = make_batch(rows, batch_layout).to(device_of(model))
    embedded: list[Tensor] = []
    embeddings = causal_lm(model).get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, __, output: embedded.append(output.requires_grad_()))
    try:
        with torch.enable_grad(), eval_mode(model), fused_head(model), engine_layers(model, batch_layout):
            torch.autograd.grad(score_batch(model, batch).log_probs.sum(), embedded[0])
    finally:
        handle.remove()
