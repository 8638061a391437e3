"""Weighted sums of LoRA adapters: of what they add to the weights, not of their factors, written as one LoRA.

Shape letters: O outputs and I inputs of a linear layer; R rank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from torch import Tensor, nn

from alignlab.errors import ConfigError
from alignlab.models.adapters import save_adapter
from alignlab.models.with_adapter import ModuleSnapshot, with_adapter


@dataclass(frozen=True)
class Factors:
    """What an adapter adds to one linear layer's weight: up_OR @ down_RI, scaling included. float64 on the CPU."""

    up_OR: Tensor
    down_RI: Tensor

    @property
    def rank(self) -> int:
        """Columns of the first factor; the product's own rank is at most this."""
        return self.up_OR.shape[1]

    def padded(self, rank: int) -> "Factors":
        """The same product with zeros up to a rank."""
        more = rank - self.rank
        return Factors(nn.functional.pad(self.up_OR, (0, more)), nn.functional.pad(self.down_RI, (0, 0, 0, more)))


Change = Mapping[str, Factors]
"""Name of a linear layer -> what an adapter adds to its weight."""


def change_of(model: Any, folder: Path, *, key: str = "adapter") -> dict[str, Factors]:
    """What a saved adapter adds to a model's weights, by PEFT's own reading of its ranks and scalings.

    Args:
        model: the base model; it is itself again afterwards.
        folder: of a plain LoRA, see `plain_lora.require_plain`.
        key: what it stands under, for errors.

    Raises:
        ConfigError: if the adapter does not fit the model, or a layer of it is no linear one.
    """
    found = {}
    with with_adapter(model, folder, key=key) as wrapped:
        for name, layer in wrapped.base_model.model.named_modules():
            if not isinstance(layer, LoraLayer):
                continue
            ((adapter, down),) = layer.lora_A.items() or [("", None)]
            if down is None or down.weight.dim() != 2 or layer.lora_variant:
                what = f"{name} is no linear layer with a plain LoRA; they alone can be added up"
                raise ConfigError(f"{key}={folder}: {what}")
            up_OR, scaling = layer.lora_B[adapter].weight, layer.scaling[adapter]
            found[name] = Factors(scaling * _plain(up_OR), _plain(down.weight))
    return found


def _plain(weights: Tensor) -> Tensor:
    return weights.detach().to("cpu", torch.float64, copy=True)


def weighted_sum(changes: Sequence[tuple[float, Change]]) -> dict[str, Factors]:
    """sum_i w_i dW_i of every layer that one of the adapters changes, exactly: its rank is the sum of theirs.

    The sum of the factors, (sum_i w_i B_i) @ (sum_i w_i A_i), is another thing: it has terms B_i @ A_j of two adapters.
    """
    parts: dict[str, list[Factors]] = {}
    for weight, change in changes:
        for name, one in change.items():
            parts.setdefault(name, []).append(Factors(weight * one.up_OR, one.down_RI))
    return {
        name: Factors(torch.cat([one.up_OR for one in found], dim=1), torch.cat([one.down_RI for one in found]))
        for name, found in parts.items()
    }


def of_rank(change: Change, rank: int) -> tuple[dict[str, Factors], float]:
    """The nearest change of a smaller rank in every layer (Eckart-Young), and the relative error over all layers.

    The error is the Frobenius norm of all that is lost, over that of the change; 0 for a change of nothing.

    Args:
        change: any.
        rank: at most this one in every layer.
    """
    found, lost, whole = {}, 0.0, 0.0
    for name, one in change.items():
        basis_OK, up_KR = torch.linalg.qr(one.up_OR)
        basis_IL, down_LR = torch.linalg.qr(one.down_RI.T)
        left_KS, values_S, right_SL = torch.linalg.svd(up_KR @ down_LR.T, full_matrices=False)
        kept = left_KS[:, :rank] * values_S[:rank]
        found[name] = Factors(basis_OK @ kept, right_SL[:rank] @ basis_IL.T)
        lost += float(values_S[rank:].square().sum())
        whole += float(values_S.square().sum())
    return found, (lost / whole) ** 0.5 if whole > 0 else 0.0


def save_change(model: Any, change: Change, folder: Path) -> int:
    """Write a change of weights as one LoRA of one rank, float32, that PEFT and its kin load; returns the rank.

    Layers of a smaller rank are filled up with zeros: every loader then takes it, not only those that know patterns.

    Args:
        model: the base model; it is itself again afterwards.
        change: of its linear layers.
        folder: where to.
    """
    rank = max(one.rank for one in change.values())
    targets = _targets(model, change)
    config = LoraConfig(
        r=rank, lora_alpha=rank, lora_dropout=0.0, target_modules=targets, bias="none", task_type="CAUSAL_LM"
    )
    base = ModuleSnapshot(model, in_full=False)
    try:
        with torch.random.fork_rng():
            wrapped = get_peft_model(model, config)
        for name, one in change.items():
            layer, filled = wrapped.base_model.model.get_submodule(name), one.padded(rank)
            for linear, weights in ((layer.lora_A["default"], filled.down_RI), (layer.lora_B["default"], filled.up_OR)):
                linear.weight = nn.Parameter(weights.to(linear.weight.device, torch.float32).contiguous())
        save_adapter(wrapped, folder)
    finally:
        base.restore()
    return rank


def _targets(model: Any, change: Change) -> list[str]:
    """The layers by the last part of their names, as adapters usually name them; in full where that names more."""
    short = sorted({name.rpartition(".")[2] for name in change})
    named = {name for name, _ in model.named_modules() if name.rpartition(".")[2] in short}
    return short if named == set(change) else sorted(change)
