"""LoRA that is a function of the objectives' weights w: dW(w) = scale * sum_i w_i B_i A_i.

It is one LoRA of the summed rank. Its rank dimension lies in blocks, one for each objective in their order, and each
is multiplied by a gate: its objective's weight. A last block, if there is one, is shared: its gate is 1. Since dW is
linear in w, any w is an ordinary LoRA: the gates go into the columns of B.

Shape letters: R summed rank, I inputs and O outputs of a layer.
"""

import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from peft.tuners.lora import LoraLayer
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from alignlab.errors import ConfigError
from alignlab.models.paths import ADAPTER, ADAPTER_WEIGHTS

GATE = "gate_R"
"""Attribute of a factor A that holds its gates."""


def gates_of(weights: Sequence[float], ranks: Sequence[int], shared_rank: int) -> list[float]:
    """The gate of each rank, R numbers.

    Args:
        weights: one an objective.
        ranks: of the objectives' blocks, in the same order.
        shared_rank: of the block whose gate is 1.
    """
    own = [weight for weight, rank in zip(weights, ranks, strict=True) for _ in range(rank)]
    return [*own, *[1.0] * shared_rank]


def install_gates(model: nn.Module) -> None:
    """Multiply the outputs of every factor A by its gates, which `set_gates` sets.

    Raises:
        ConfigError: if the adapter lies on a layer other than a linear one.
    """
    for name, layer in _lora_layers(model):
        if layer.lora_embedding_A or not all(isinstance(factor, nn.Linear) for factor in layer.lora_A.values()):
            raise ConfigError(f"peft.target_modules: {name} is no linear layer, which is all that w can gate")
        for factor in layer.lora_A.values():
            factor.register_forward_hook(_gate_output)


def set_gates(model: nn.Module, gates_R: Sequence[float]) -> None:
    """Set the gates of every factor A of a model; a plain attribute, so that no state dict or broadcast holds it."""
    made: dict[tuple[torch.device, torch.dtype], Tensor] = {}
    for _, layer in _lora_layers(model):
        for factor in layer.lora_A.values():
            key = (factor.weight.device, factor.weight.dtype)
            if key not in made:
                made[key] = torch.tensor(list(gates_R), device=key[0], dtype=key[1])
            setattr(factor, GATE, made[key])


def gated_weight(factor: nn.Module) -> Tensor:
    """A factor A's weights with its gates in its rows, shape (R, I); the weights themselves where it has none."""
    weight: Tensor = factor.weight  # type: ignore[assignment]
    gates_R: Tensor | None = getattr(factor, GATE, None)
    return weight if gates_R is None else gates_R[:, None] * weight


def _gate_output(factor: nn.Module, _: Any, output: Tensor) -> Tensor:
    gates_R: Tensor = getattr(factor, GATE)
    return output * gates_R.to(output.dtype)


def _lora_layers(model: nn.Module) -> Iterator[tuple[str, LoraLayer]]:
    return ((name, module) for name, module in model.named_modules() if isinstance(module, LoraLayer))


def write_adapter_at(
    source: Path, target: Path, *, weights: Mapping[str, float], ranks: Mapping[str, int], shared_rank: int
) -> None:
    """Write the ordinary LoRA that a conditioned adapter is at one w: PEFT's own files, the gates in B's columns.

    Args:
        source: the conditioned adapter.
        target: an empty folder.
        weights: objective -> weight; of any sum.
        ranks: objective -> rank of its block, in the blocks' order.
        shared_rank: of the block whose gate is 1.

    Raises:
        ConfigError: if the adapter's tensors are not of the summed rank.
    """
    gates_R = torch.tensor(gates_of([weights[name] for name in ranks], list(ranks.values()), shared_rank))
    tensors = load_file(source / ADAPTER_WEIGHTS[0])
    for name, tensor_OR in tensors.items():
        if ".lora_B." not in name:
            continue
        if tensor_OR.shape[1] != len(gates_R):
            raise ConfigError(f"{source}: {name} has rank {tensor_OR.shape[1]}, its card says {len(gates_R)}")
        tensors[name] = (tensor_OR.float() * gates_R).to(tensor_OR.dtype)
    shutil.copyfile(source / ADAPTER, target / ADAPTER)
    save_file(tensors, target / ADAPTER_WEIGHTS[0], metadata={"format": "pt"})
