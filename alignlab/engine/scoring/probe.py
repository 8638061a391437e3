"""Tries at the start how a model takes its rows, so that no list of names has to know it.

One small batch is computed several ways: which packing gives the padded batch's log-probabilities, also for the longest
row to come, and whether TRL's fused head gives the model's own.
"""

import contextlib
from collections.abc import Sequence
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn

from alignlab.engine.scoring.attention import allow_variants
from alignlab.engine.scoring.forward import (
    Packing,
    causal_lm,
    computing,
    evaluating,
    fused_head,
    lay_out,
    own_heads,
    score_layout,
)
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import say

ERRORS = (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError)
"""What models say of rows that they do not take."""

LEAST_TOLERANCE = 2e-5
"""Relative; some times what float32 leaves of a packing's other order of sums."""


def packing_of(model: Any, *, longest: int, autocast: bool = False) -> Packing:
    """The best packing that gives the model the padded batch's log-probabilities, tried on one small batch.

    A model whose layers carry state past the mask (recurrent, convolutional) takes no forest; its batches are padded,
    and that is said.

    Args:
        model: a causal language model, wrapped or not.
        longest: tokens of the longest row to come; what holds for short rows may not hold for long ones. A forest
            that holds for long rows holds for shorter ones, and one that fails for short rows for longer ones; neither
            is tried again.
        autocast: whether the rows to come are computed in bfloat16, whatever the weights' type.
    """
    inner = causal_lm(model)
    where = (next(inner.parameters()).device.type, autocast)
    tried = _tried.setdefault(inner, {})
    for (length, *there), packing in tried.items():
        if tuple(there) == where and (length >= longest if packing.is_forest else length <= longest):
            return packing
    with torch.autocast(where[0], dtype=torch.bfloat16, enabled=autocast):
        tried[longest, *where] = _first_that_works(model, longest, autocast)
    return tried[longest, *where]


_tried: "WeakKeyDictionary[nn.Module, dict[tuple[int, str, bool], Packing]]" = WeakKeyDictionary()


def _first_that_works(model: Any, longest: int, autocast: bool) -> Packing:
    inner, on_gpu = causal_lm(model), next(model.parameters()).device.type == "cuda"
    try:
        probe = _Probe(model, longest, torch.bfloat16 if autocast else next(model.parameters()).dtype)
    except torch.OutOfMemoryError:
        raise
    except ERRORS as error:
        say(f"{type(inner).__name__} is padded, since it does not take the rows of a trial: {_told(error)}")
        return Packing.PADDED
    if probe.head_differs():
        say(f"{type(inner).__name__} gives other logits than TRL's fused head: its own are taken")
        own_heads.add(inner)
    if on_gpu:
        allow_variants()
    for packing in (Packing.BLOCKS, Packing.TREES) if on_gpu else (Packing.TREES,):
        objection = probe.objection(packing)
        if objection is None:
            return packing
        say(f"{type(inner).__name__} is not computed as {packing.value}: {objection}")
    return Packing.PADDED


class _Probe:
    """Small batches computed several ways.

    Args:
        model: a causal language model, wrapped or not.
        longest: tokens of the longest row to come.
        dtype: what the model computes in.
    """

    def __init__(self, model: Any, longest: int, dtype: torch.dtype) -> None:
        self.model = model
        vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
        self.short, self.long = _probe_rows(vocabulary, min(longest, 48)), _long_rows(vocabulary, longest)
        self.expected = _probed(model, self.short, Packing.PADDED)
        alone = [_probed(model, [row], Packing.PADDED)[0] for row in self.short]
        noise = _distance(nn.utils.rnn.pad_sequence(alone, batch_first=True), self.expected)
        eps = torch.finfo(dtype).eps
        self.tolerance = max(4 * noise, eps / 4, LEAST_TOLERANCE)
        """In bfloat16 the batch that a row is in moves its log-probabilities already."""
        self.head_tolerance = max(self.tolerance, 2 * eps)
        """A model rounds its logits to what it computes in, TRL's head does not."""

    def head_differs(self) -> bool:
        """Whether TRL's fused head, which knows the usual caps and scales, does not give the model's own logits."""
        own = _probed(self.model, self.short, Packing.PADDED, is_own=True)
        differs = not _distance(self.expected, own) < self.head_tolerance
        if differs:
            self.expected = own
        return differs

    def objection(self, packing: Packing) -> str | None:
        """Why the model does not take the packing; any error of the packing's way is a reason."""
        first = _probed(self.model, self.long[:1], Packing.PADDED)
        try:
            got = [_probed(self.model, rows, packing) for rows in (self.short, self.long)]
            _differentiate(self.model, self.short, packing)
        except torch.OutOfMemoryError:
            raise
        except ERRORS as error:
            return _told(error)
        for packed, padded in zip(got, (self.expected, first), strict=True):
            difference = _distance(packed[: len(padded)], padded)
            if not difference < self.tolerance:
                return f"its log-probabilities differ by {difference:.1g} of their size"
        return None


def _told(error: Exception) -> str:
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


def _distance(values: Tensor, expected: Tensor) -> float:
    """Root mean square of the difference, as a share of the expected values'."""
    return float((values - expected).norm() / expected.norm())


def _probe_rows(vocabulary: int, longest: int) -> list[Encoded]:
    """Rows with shared beginnings, one inside another, and a stranger."""
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
    """The longest row to come, scored at its end, and one that leaves it there: windows hide nothing before."""
    length = max(longest, 8)
    text = torch.randint(0, vocabulary, (length,), generator=torch.Generator().manual_seed(1)).tolist()
    prompt = max(1, length - 32)
    return [Encoded(text[:prompt], text[prompt:]), Encoded(text[:prompt], text[prompt:-3] + text[:2])]


@torch.no_grad()
def _probed(model: Any, rows: Sequence[Encoded], packing: Packing, *, is_own: bool = False) -> Tensor:
    """Log-probabilities of the rows' tokens in a packing, if `is_own` from the logits that the model itself gives."""
    layout = lay_out(rows, packing).to(next(model.parameters()).device)
    with evaluating(model), contextlib.nullcontext() if is_own else fused_head(model), computing(model, packing):
        logps: Tensor = score_layout(model, layout, is_own=is_own).log_probs
    return logps


def _differentiate(model: Any, rows: Sequence[Encoded], packing: Packing) -> None:
    """A backward pass down to the embedded tokens; no weight's gradient is touched."""
    layout = lay_out(rows, packing).to(next(model.parameters()).device)
    embedded: list[Tensor] = []
    embeddings = causal_lm(model).get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, __, output: embedded.append(output.requires_grad_()))
    try:
        with torch.enable_grad(), evaluating(model), fused_head(model), computing(model, packing):
            torch.autograd.grad(score_layout(model, layout).log_probs.sum(), embedded[0])
    finally:
        handle.remove()
