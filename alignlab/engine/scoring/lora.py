"""LoRA layers on a CPU: one product with the layer's and the adapter's summed weights, where that is less work.

PEFT multiplies by the layer's weights W and by the adapter's factors apart, and adds the results up. Forward and
backward that is 2 T I O multiplications for W and 3 T R (I + O) for the factors, with five passes over the outputs.
W + s B A is made with R I O multiplications; with it the same outputs and gradients take 3 T I O and no further pass.
That is less for an adapter whose rank is beyond a sixth of the layer's width, as adapters of small models are. A GPU
keeps PEFT's way: its adapters are thin, and its products are not what it waits for.

Shape letters: T tokens, I inputs and O outputs of a layer, R rank.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from types import MethodType
from typing import Any

import torch
from peft.tuners.lora import Linear as LoraLinear
from torch import Tensor, nn


class SummedLinear(torch.autograd.Function):
    """x (W + s B A)^T + bias, shape (..., O), with gradients of x, A and B; W and the bias are frozen."""

    @staticmethod
    def forward(
        ctx: Any, x: Tensor, weight_OI: Tensor, bias_O: Tensor | None, a_RI: Tensor, b_OR: Tensor, scale: float
    ) -> Tensor:
        """Multiplies by the summed weights, and keeps them."""
        summed_OI = torch.addmm(weight_OI, b_OR, a_RI, alpha=scale)
        ctx.save_for_backward(x, summed_OI, a_RI, b_OR)
        ctx.scale = scale
        return nn.functional.linear(x, summed_OI, bias_O)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """The gradient of the sum, handed on to its factors."""
        x, summed_OI, a_RI, b_OR = ctx.saved_tensors
        grad_TO, x_TI = grads[0].reshape(-1, len(summed_OI)), x.reshape(-1, x.shape[-1])
        grad_x = (grad_TO @ summed_OI).view(x.shape) if ctx.needs_input_grad[0] else None
        grad_sum_OI = grad_TO.t() @ x_TI
        return grad_x, None, None, ctx.scale * (b_OR.t() @ grad_sum_OI), ctx.scale * (grad_sum_OI @ a_RI.t()), None


@contextmanager
def summed_adapters(model: nn.Module) -> Iterator[None]:
    """The model with its LoRA layers computed by SummedLinear, each where it can be and is less work."""
    on_cpu = next(model.parameters()).device.type == "cpu"
    modules = model.modules() if on_cpu else ()
    layers = [layer for layer in modules if type(layer) is LoraLinear and "forward" not in layer.__dict__]
    for layer in layers:
        layer.__dict__["forward"] = MethodType(_forward, layer)
    try:
        yield
    finally:
        for layer in layers:
            layer.__dict__.pop("forward", None)


def _forward(layer: LoraLinear, x: Tensor, *args: Any, **named: Any) -> Tensor:
    """Stands in the place of PEFT's forward, and calls it where SummedLinear does not serve."""
    adapter = None if args or named else _plain_adapter(layer, x)
    if adapter is None:
        usual: Tensor = LoraLinear.forward(layer, x, *args, **named)
        return usual
    base, a_RI, b_OR = layer.base_layer, layer.lora_A[adapter].weight, layer.lora_B[adapter].weight
    given = (x, base.weight, base.bias, a_RI, b_OR, layer.scaling[adapter])
    summed: Tensor = SummedLinear.apply(*given)  # type: ignore[no-untyped-call]
    return summed


def _pays(tokens: int, outputs: int, inputs: int, rank: int, with_gradient: bool) -> bool:
    """Whether summing takes fewer multiplications than PEFT's way."""
    summing, factors = rank * inputs * outputs, tokens * rank * (inputs + outputs)
    return 3 * summing + tokens * inputs * outputs < 3 * factors if with_gradient else summing < factors


def _plain_adapter(layer: LoraLinear, x: Tensor) -> str | None:
    """The layer's one active adapter; None where PEFT does more than a sum of two products, or does them faster."""
    active = [name for name in layer.active_adapters if name in layer.lora_A]
    if layer.disable_adapters or layer.merged or len(active) != 1 or active[0] in layer.lora_variant:
        return None
    (name,), base = active, layer.base_layer
    dropout, a, b = layer.lora_dropout[name], layer.lora_A[name], layer.lora_B[name]
    is_dropping = layer.training and not isinstance(dropout, nn.Identity)
    is_plain = type(base) is nn.Linear and not layer.fan_in_fan_out and b.bias is None and not is_dropping
    tensors = [x, base.weight, a.weight, b.weight]
    is_alike = is_plain and all(tensor.device.type == "cpu" and tensor.dtype == x.dtype for tensor in tensors)
    if not is_alike or base.weight.requires_grad or torch.is_autocast_enabled("cpu"):
        return None
    rank, inputs, outputs = len(a.weight), base.in_features, base.out_features
    return name if _pays(x.numel() // inputs, outputs, inputs, rank, torch.is_grad_enabled()) else None
