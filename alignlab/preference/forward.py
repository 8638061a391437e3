"""One forward for policy, reference and implicit rewards: a layout in, log-probabilities of its scored tokens out.

TRL's fused head does the projection, in chunks, with float32 sums. It is handed only the positions that score a
response token, on every device; prompts, padding and shared tokens are never projected twice.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from enum import Enum
from typing import Any
from weakref import WeakKeyDictionary

import torch
from torch import Tensor, nn
from trl.trainer import utils as trl_utils
from trl.trainer.utils import FusedCausalLMOutput, add_fused_lm_head

from alignlab.models.prompts import Encoded
from alignlab.preference.attention import Forest, forest_attended
from alignlab.preference.head import frozen_head
from alignlab.preference.layout import Layout, forest_layout, padded_layout
from alignlab.preference.lora import summed_adapters
from alignlab.runs.progress import say

LOGGED_FIELDS = ("log_probs", "entropy", "mean_logits", "is_top1")
"""What a log line says of the scored tokens; every other forward needs the first alone."""


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


def score_layout(model: Any, layout: Layout) -> FusedCausalLMOutput:
    """TRL's per-token outputs for the layout's rows, shape (B, T) each, zero where nothing is scored.

    Args:
        model: a causal language model with TRL's fused head, wrapped or not, attending as the layout needs.
        layout: the tokens, on the model's device.
    """
    inner, targets_1N = causal_lm(model), layout.targets_N[None]
    inputs = {"input_ids": layout.ids_RL, "position_ids": layout.positions_RL, "use_cache": False}
    inputs |= {"forest": Forest(layout)} if layout.is_forest else {"attention_mask": layout.real_mask()}
    with _only_scored(inner.base_model, layout.sources_N):
        if isinstance(inner.get_output_embeddings(), nn.Linear):
            output = model(**inputs, shift_labels=targets_1N, fused_lm_head=True)
        else:
            output = _from_logits(model(**inputs).logits, targets_1N)
    rows = {name: _to_rows(getattr(output, name), layout.entries_BT) for name in LOGGED_FIELDS}
    return FusedCausalLMOutput(**rows)


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


def packing_of(model: Any, *, longest: int) -> Packing:
    """The best packing that gives the model the padded batch's log-probabilities, tried on one small batch.

    A model whose layers carry state past the mask (recurrent, convolutional) takes no forest; its batches are padded,
    and that is said.

    Args:
        model: a causal language model, wrapped or not.
        longest: tokens of the longest row to come; what holds for short rows may not hold for long ones. A forest
            that holds for long rows holds for shorter ones, and is not tried again.
    """
    inner = causal_lm(model)
    device = next(inner.parameters()).device.type
    tried = _tried.setdefault(inner, {})
    for (length, where), packing in tried.items():
        if where == device and (length == longest or (length > longest and packing.is_forest)):
            return packing
    tried[longest, device] = _first_that_works(model, longest)
    return tried[longest, device]


_tried: "WeakKeyDictionary[nn.Module, dict[tuple[int, str], Packing]]" = WeakKeyDictionary()


def _first_that_works(model: Any, longest: int) -> Packing:
    on_gpu = next(model.parameters()).device.type == "cuda"
    for packing in (Packing.BLOCKS, Packing.TREES) if on_gpu else (Packing.TREES,):
        objection = _objection(model, packing, longest)
        if objection is None:
            return packing
        say(f"{type(causal_lm(model)).__name__} is not computed as {packing.value}: {objection}")
    return Packing.PADDED


def _objection(model: Any, packing: Packing, longest: int) -> str | None:
    """Why the model does not take the packing, from two batches both ways; any error of the packing's way is one."""
    vocabulary = causal_lm(model).get_input_embeddings().weight.shape[0]
    short, long = _probe_rows(vocabulary, min(longest, 48)), _long_rows(vocabulary, longest)
    try:
        expected = [_probed(model, short, Packing.PADDED), _probed(model, long[:1], Packing.PADDED)]
        got = [_probed(model, short, packing), _probed(model, long, packing)]
        _differentiate(model, short, packing)
    except torch.OutOfMemoryError:
        raise
    except (TypeError, ValueError, RuntimeError, AttributeError, IndexError, KeyError) as error:
        return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"
    tolerance = torch.finfo(next(model.parameters()).dtype).eps ** 0.5
    for packed, padded in zip(got, expected, strict=True):
        difference = float((packed[: len(padded)] - padded).abs().max() / padded.abs().max())
        if not difference < tolerance:
            return f"its log-probabilities differ by {difference:.1g} of the greatest"
    return None


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
def _probed(model: Any, rows: Sequence[Encoded], packing: Packing) -> Tensor:
    """Log-probabilities of the rows' tokens in a packing."""
    layout = lay_out(rows, packing).to(next(model.parameters()).device)
    with _evaluating(model), fused_head(model), computing(model, packing):
        logps: Tensor = score_layout(model, layout).log_probs
    return logps


def _differentiate(model: Any, rows: Sequence[Encoded], packing: Packing) -> None:
    """A backward pass down to the embedded tokens; no weight's gradient is touched."""
    layout = lay_out(rows, packing).to(next(model.parameters()).device)
    embedded: list[Tensor] = []
    embeddings = causal_lm(model).get_input_embeddings()
    handle = embeddings.register_forward_hook(lambda _, __, output: embedded.append(output.requires_grad_()))
    try:
        with torch.enable_grad(), _evaluating(model), fused_head(model), computing(model, packing):
            torch.autograd.grad(score_layout(model, layout).log_probs.sum(), embedded[0])
    finally:
        handle.remove()


@contextmanager
def _evaluating(model: Any) -> Iterator[None]:
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)
