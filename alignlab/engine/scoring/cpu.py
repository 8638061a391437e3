"""Faster forms for CPUs alone of two operations; a GPU never comes here. ENABLED is the switch for both.

Frozen head: log-probabilities of given tokens with two projections a step where TRL's head takes three. The gradient of
log p(t) by the hidden state h is W_t - p W, whatever the loss; the loss only scales it, token by token. So it is
computed in the forward pass, from the probabilities at hand, and the backward pass projects nothing again (as Liger's
fused cross-entropy does, arXiv:2410.10989). TRL's head stays for heads that are trained, capped or scaled.

Summed adapters: one product with the layer's and the adapter's summed weights, where that is less work. PEFT multiplies
by the layer's weights W and by the adapter's factors apart, and adds the results. Forward and backward that is 2 T I O
multiplications for W and 3 T R (I + O) for the factors, with five passes over the outputs. W + s B A is made with R I O
multiplications; with it the same outputs and gradients take 3 T I O and no further pass. That is less for an adapter
whose rank is beyond a sixth of the layer's width, as adapters of small models are.

Shape letters: N scored tokens, C of one chunk, H hidden width, V vocabulary; T tokens, I inputs and O outputs of a
layer, R rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any
from weakref import WeakKeyDictionary

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from trl.trainer.utils import FusedCausalLMOutput

from alignlab.engine.models import device_of, eval_mode
from alignlab.models.conditioned import gated_weight

ENABLED = True
"""Whether CPUs use the forms of this file; without them they compute as GPUs do."""

CHUNK = 1 << 22
"""Logits computed at a time: enough rows for a matrix product at full speed, few enough for the last-level cache."""

LEAST_LOGP = -80.0
"""Below it a probability is a denormal float32 with an inexact logarithm; log-softmax of the logits replaces it."""


class FrozenHead(torch.autograd.Function):
    """(log-probabilities, entropies, mean logits, is the target most likely) of N tokens, (N,) each, float32.

    All but the first are None unless `all_fields`, and have no gradient.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor, all_fields: bool
    ) -> tuple[Tensor | None, ...]:
        """Compute the gradient too, where one is wanted.

        Args:
            ctx: torch's context.
            hidden_NH: hidden states that predict the tokens.
            weight_VH: the head's weight, frozen.
            bias_V: its bias, frozen.
            targets_N: the tokens.
            all_fields: whether to compute what is logged beside the log-probabilities.
        """
        logps_N, entropy_N, mean_N = hidden_NH.new_empty(3, len(hidden_NH), dtype=torch.float32)
        is_top_N = torch.empty_like(targets_N, dtype=torch.bool)
        grad_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        size = max(1, CHUNK // len(weight_VH))
        for start in range(0, len(hidden_NH), size):
            chunk = slice(start, start + size)
            targets_C = targets_N[chunk]
            logits_CV = hidden_NH[chunk].to(weight_VH.dtype) @ weight_VH.t()
            if bias_V is not None:
                logits_CV += bias_V
            logits_CV = logits_CV.float()
            if all_fields:
                mean_N[chunk] = logits_CV.mean(-1)
                is_top_N[chunk] = logits_CV.argmax(-1) == targets_C
            probs_CV = torch.softmax(logits_CV, -1, out=logits_CV)
            logps_N[chunk] = probs_CV.gather(1, targets_C[:, None])[:, 0].log()
            if all_fields:
                entropy_N[chunk] = torch.special.entr(probs_CV).sum(-1)
            if grad_NH is not None:
                grad_NH[chunk] = weight_VH[targets_C] - probs_CV.to(weight_VH.dtype) @ weight_VH
        denormal_N = logps_N < LEAST_LOGP
        if denormal_N.any():
            logits_CV = nn.functional.linear(hidden_NH[denormal_N].to(weight_VH.dtype), weight_VH, bias_V).float()
            logps_N[denormal_N] = logits_CV.log_softmax(-1).gather(1, targets_N[denormal_N, None])[:, 0]
        if grad_NH is not None:
            ctx.save_for_backward(grad_NH)
        if not all_fields:
            return logps_N, None, None, None
        ctx.mark_non_differentiable(entropy_N, mean_N, is_top_N)
        return logps_N, entropy_N, mean_N, is_top_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scale the gradient that the forward pass has computed."""
        (grad_NH,) = ctx.saved_tensors
        return grads[0].to(grad_NH.dtype)[:, None] * grad_NH, None, None, None, None


STRETCH = 1000.0
"""Factor on hidden states by which a cap of the logits shows."""

_plain_heads: "WeakKeyDictionary[nn.Module, bool]" = WeakKeyDictionary()


def use_frozen_head(inner: Any, fields: tuple[str, ...]) -> None:
    """Have a model that got TRL's fused head compute by FrozenHead wherever that applies.

    Args:
        inner: a causal language model whose instance has TRL's fused forward; removing that forward removes this one.
        fields: the per-token values to compute.
    """
    if not ENABLED or device_of(inner).type != "cpu" or not _has_plain_head(inner):
        return
    usual = inner.forward

    def forward(self: Any, *args: Any, fused_lm_head: bool = False, shift_labels: Any = None, **inputs: Any) -> Any:
        """Log-probabilities of the labels, by FrozenHead where the fused head is asked for and the head is frozen."""
        head = self.get_output_embeddings()
        if not fused_lm_head or not _is_frozen(head):
            return usual(*args, fused_lm_head=fused_lm_head, shift_labels=shift_labels, **inputs)
        inputs.pop("labels", None)  # PEFT names it
        hidden_1NH = self.base_model(*args, **inputs).last_hidden_state
        weight_VH, bias_V = _unsharded(head.weight), None if head.bias is None else _unsharded(head.bias)
        given = (hidden_1NH[0], weight_VH, bias_V, shift_labels[0], len(fields) > 1)
        logps_N, *logged = FrozenHead.apply(*given)  # type: ignore[no-untyped-call]
        entropy_1N, mean_1N, is_top_1N = (None if one is None else one[None] for one in logged)
        return FusedCausalLMOutput(log_probs=logps_N[None], entropy=entropy_1N, mean_logits=mean_1N, is_top1=is_top_1N)

    inner.forward = MethodType(forward, inner)


def _is_frozen(head: nn.Linear) -> bool:
    """Whether a head's weights are on a CPU and get no gradient."""
    weights = [head.weight] if head.bias is None else [head.weight, head.bias]
    return not any(one.requires_grad or one.device.type != "cpu" for one in weights)


def _unsharded(weight: Tensor) -> Tensor:
    """A weight as it is; put together where processes share it out."""
    whole: Tensor = weight.full_tensor() if isinstance(weight, DTensor) else weight
    return whole


@torch.no_grad()
def _has_plain_head(inner: Any) -> bool:
    """Whether a model's logits are its head's output as it is: not capped, not scaled. Tried once a model."""
    head = inner.get_output_embeddings()
    if not isinstance(head, nn.Linear):
        return False
    if inner not in _plain_heads:
        seen: list[Tensor] = []

        def stretch(module: nn.Module, arguments: Any, output: Any) -> Any:
            output.last_hidden_state = STRETCH * output.last_hidden_state
            seen.append(output.last_hidden_state)
            return output

        handle = inner.base_model.register_forward_hook(stretch)
        try:
            with eval_mode(inner):
                logits = inner(torch.tensor([[0, 1]]), use_cache=False).logits
        finally:
            handle.remove()
        _plain_heads[inner] = torch.equal(logits.float(), head(seen[0]).float())
    return _plain_heads[inner]


class SummedLinear(torch.autograd.Function):
    """x (W + s B A)^T + bias, shape (..., O), with gradients of x, A and B; W and the bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
    ) -> Tensor:
        """Multiply by the summed weights, and keep them for the backward pass.

        Args:
            ctx: torch's context.
            x: inputs, shape (..., I).
            weight_OI: the layer's weight W, frozen.
            bias_O: its bias, frozen.
            a_RI: the adapter's factor A.
            b_OR: the adapter's factor B.
            scale: the adapter's factor s.
        """
        summed_OI = torch.addmm(weight_OI, b_OR, a_RI, alpha=scale)
        ctx.save_for_backward(x, summed_OI, a_RI, b_OR)
        ctx.scale = scale
        return nn.functional.linear(x, summed_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the summed weights, passed on to the factors."""
        x, summed_OI, a_RI, b_OR = ctx.saved_tensors
        grad_TO, x_TI = grads[0].reshape(-1, len(summed_OI)), x.reshape(-1, x.shape[-1])
        grad_x = (grad_TO @ summed_OI).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_sum_OI = grad_TO.t() @ x_TI
        return grad_x, None, None, ctx.scale * (b_OR.t() @ grad_sum_OI), ctx.scale * (grad_sum_OI @ a_RI.t()), None


@contextmanager
def summed_adapters(model: nn.Module) -> Iterator[None]:
    """Compute a model's LoRA layers by SummedLinear, each where it applies and is less work."""
    modules = model.modules() if ENABLED and device_of(model).type == "cpu" else ()
    layers = [layer for layer in modules if type(layer) is LoraLinear and "forward" not in layer.__dict__]
    for layer in layers:
        layer.__dict__["forward"] = MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _forward(layer: LoraLinear, x: Tensor, *args: Any, **named: Any) -> Tensor:
    """Replaces PEFT's forward; calls it where SummedLinear does not apply."""
    adapter = None if args or named else _plain_adapter(layer, x)
    if adapter is None:
        usual: Tensor = LoraLinear.forward(layer, x, *args, **named)
        return usual
    base, a_RI, b_OR = layer.base_layer, gated_weight(layer.lora_A[adapter]), layer.lora_B[adapter].weight
    given = (x, base.weight, base.bias, a_RI, b_OR, layer.scaling[adapter])
    summed: Tensor = SummedLinear.apply(*given)  # type: ignore[no-untyped-call]
    return summed


def _pays(tokens: int, outputs: int, inputs: int, rank: int, with_gradient: bool) -> bool:
    """Whether summing takes fewer multiplications than PEFT's two products."""
    summing, factors = rank * inputs * outputs, tokens * rank * (inputs + outputs)
    return 3 * summing + tokens * inputs * outputs < 3 * factors if with_gradient else summing < factors


def _plain_adapter(layer: LoraLinear, x: Tensor) -> str | None:
    """The layer's one active adapter; None where PEFT computes more than a sum of two products, or is faster."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1 or active[0] in layer.lora_variant:
        return None
    (name,), base = active, layer.base_layer
    dropout, a, b = layer.lora_dropout[name], layer.lora_A[name], layer.lora_B[name]
    is_dropping = layer.training and not isinstance(dropout, nn.Identity)
    is_plain = type(base) is nn.Linear and not layer.fan_in_fan_out and b.bias is None and not is_dropping
    tensors = [x, base.weight, a.weight, b.weight]
    is_uniform = is_plain and all(tensor.device.type == "cpu" and tensor.dtype == x.dtype for tensor in tensors)
    if not is_uniform or base.weight.requires_grad or torch.is_autocast_enabled("cpu"):
        return None
    rank, inputs, outputs = len(a.weight), base.in_features, base.out_features
    return name if _pays(x.numel() // inputs, outputs, inputs, rank, torch.is_grad_enabled()) else None
