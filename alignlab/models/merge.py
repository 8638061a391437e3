"""A LoRA adapter added into its base model's weights: in float32, then cast, with a report of what the cast lost."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn

from alignlab.errors import ConfigError
from alignlab.models.finite import refuse_non_finite
from alignlab.models.with_adapter import load_adapter


@dataclass(frozen=True)
class LayerLoss:
    """What casting the merged weights of one layer lost."""

    name: str
    num_weights: int
    """Weights that the adapter changes."""
    unmoved: int
    """Those among them that the cast puts back to the base model's value."""
    delta_norm: float
    """Frobenius norm of what the adapter adds."""
    lost_norm: float
    """Frobenius norm of merged in float32 minus merged and cast."""
    max_lost: float
    """The same, greatest single weight."""

    @property
    def share_lost(self) -> float | None:
        """Norm of the error relative to that of the adapter's own change; None where it changes nothing."""
        return self.lost_norm / self.delta_norm if self.delta_norm > 0 else None


@dataclass(frozen=True)
class MergeReport:
    """What a whole merge lost."""

    layers: tuple[LayerLoss, ...]

    @property
    def max_lost(self) -> float:
        """Greatest error of a single weight."""
        return max((layer.max_lost for layer in self.layers), default=0.0)

    @property
    def share_lost(self) -> float | None:
        """Norm of all errors relative to that of all changes."""
        changed = sum(layer.delta_norm**2 for layer in self.layers) ** 0.5
        lost = sum(layer.lost_norm**2 for layer in self.layers) ** 0.5
        return lost / changed if changed > 0 else None

    @property
    def share_unmoved(self) -> float:
        """Share of the weights that should have changed and did not."""
        return sum(layer.unmoved for layer in self.layers) / max(1, sum(layer.num_weights for layer in self.layers))

    @property
    def worst(self) -> LayerLoss | None:
        """The layer that lost the greatest share."""
        return max(self.layers, key=lambda layer: layer.share_lost or 0.0, default=None)


@torch.no_grad()
def merge_adapter(
    model: Any, folder: Path, *, dtype: torch.dtype, key: str = "algorithm.adapter"
) -> tuple[Any, MergeReport]:
    """The model with a saved adapter in its weights, all of them in `dtype`, and what casting to it lost.

    Args:
        model: the base model; it is used up.
        folder: the adapter.
        dtype: of the merged model. A sum in 16 bit would lose most of a small update before anything is cast.
        key: what the adapter stands under, for errors.

    Raises:
        ConfigError: if the adapter does not fit the model, or is of a kind that no weight can hold.
    """
    wrapped = load_adapter(model, folder, key=key)
    layers = [
        _merge_layer(name, module, dtype, what=f"{key}={folder}")
        for name, module in wrapped.base_model.model.named_modules()
        if isinstance(module, BaseTunerLayer)
    ]
    merged = wrapped.unload().to(dtype)
    name = str(dtype).removeprefix("torch.")
    wider = "model.dtype" if key == "model.adapter" else "algorithm.dtype"
    remedy = f"its numbers are too large for this type; look at the adapter, or take a wider {wider}"
    refuse_non_finite(f"{key}={folder}: merged in {name}", dict(merged.named_parameters()), remedy=remedy)
    _say_untied(merged)
    return merged, MergeReport(tuple(layers))


def _say_untied(model: Any) -> None:
    """An adapter on the embeddings alone parts them from the head; loading would tie them again unless told."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and embeddings.weight is not head.weight:
        model.config.tie_word_embeddings = False


def _merge_layer(name: str, layer: Any, dtype: torch.dtype, *, what: str) -> LayerLoss:
    """Merges one adapted layer, as PEFT does for its kind of adapter, but in float32.

    Args:
        name: of the layer.
        layer: PEFT's.
        dtype: of the merged weight.
        what: `KEY=FOLDER` of the adapter, for errors.
    """
    holder: nn.Module = layer.get_base_layer()
    before = getattr(holder, "weight", None)
    if not isinstance(before, nn.Parameter):
        raise ConfigError(f"{what}: {name} cannot be merged: a {type(layer).__name__} changes no single weight")
    base = before.detach().float()
    exact = nn.Parameter(base.clone(), requires_grad=False)
    holder.weight = exact
    try:
        layer.merge()
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"{what}: {name} cannot be merged: {error!s:.200}") from None
    cast = exact.to(dtype)
    holder.weight = nn.Parameter(cast, requires_grad=False)
    lost, changed = exact - cast.float(), exact != base
    return LayerLoss(
        name=name,
        num_weights=int(changed.sum()),
        unmoved=int((changed & (cast.float() == base)).sum()),
        delta_norm=float((exact - base).norm()),
        lost_norm=float(lost.norm()),
        max_lost=float(lost.abs().max()),
    )
