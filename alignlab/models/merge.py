"""A saved adapter merged into its base model: in float32, then cast, with a report of what the cast lost."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft.tuners.tuners_utils import BaseTunerLayer
from peft.utils import load_peft_weights
from torch import Tensor, nn

from alignlab.errors import ConfigError
from alignlab.models.checkpoint import UNQUANTISED
from alignlab.models.finite import refuse_non_finite
from alignlab.models.with_adapter import load_adapter, saved_keys


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
    replaced: tuple[str, ...] = ()
    """Weights and biases that the adapter holds whole, in the place of the base model's; `layers` has them too."""

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
    if getattr(model.config, "quantization_config", None):
        raise ConfigError(f"{key}={folder}: cannot be merged into quantised weights; {UNQUANTISED}")
    originals = _originals(model, folder)
    wrapped = load_adapter(model, folder, key=key)
    adapted = {
        name: module for name, module in wrapped.base_model.model.named_modules() if isinstance(module, BaseTunerLayer)
    }
    layers = [
        loss
        for name, module in adapted.items()
        for loss in _merge_layer(name, module, dtype, originals=originals, what=f"{key}={folder}")
    ]
    merged = wrapped.unload().to(dtype)
    factored = {layer.name if layer.name.endswith(".bias") else f"{layer.name}.weight" for layer in layers}
    whole = _replace_whole(merged, folder, {name: one for name, one in originals.items() if name not in factored})
    name = str(dtype).removeprefix("torch.")
    wider = "model.dtype" if key == "model.adapter" else "algorithm.dtype"
    remedy = f"its numbers are too large for this type; look at the adapter, or take a wider {wider}"
    refuse_non_finite(f"{key}={folder}: merged in {name}", dict(merged.named_parameters()), remedy=remedy)
    _say_untied(merged)
    return merged, MergeReport((*layers, *whole), replaced=tuple(layer.name for layer in whole))


def _originals(model: Any, folder: Path) -> dict[str, Tensor]:
    """Copies of the base model's weights and biases of which the adapter's file holds another whole, by name.

    Loading writes some of these in place. Of the older pickled form, whose names only torch could list, all are copied.
    """
    own = dict(model.named_parameters(remove_duplicate=False))
    keys = saved_keys(folder)
    names = [_parameter_of(key) for key in keys] if keys else list(own)
    return {name: own[name].detach().clone() for name in names if name in own}


def _replace_whole(merged: Any, folder: Path, originals: Mapping[str, Tensor]) -> list[LayerLoss]:
    """Give the merged model what the adapter holds whole, from the file: loading rounds it to the base model's type.

    Args:
        merged: the model, in the type that it is kept in.
        folder: the adapter's.
        originals: what the base model has in those places; a layer's own factors are merged before.
    """
    own, found = dict(merged.named_parameters(remove_duplicate=False)), []
    for key, saved in load_peft_weights(str(folder), device="cpu").items():
        name = _parameter_of(key)
        if name in originals and name in own:
            base, exact = originals[name].float(), saved.to(originals[name].device).float()
            own[name].data = exact.to(own[name].dtype)
            if not exact.equal(base):  # embeddings are saved along unchanged
                found.append(_loss(name, base, exact, own[name].data))
    return found


def _parameter_of(key: str) -> str:
    """`base_model.model.model.norm.weight` of an adapter's file -> `model.norm.weight`."""
    name = key.removeprefix("base_model.model.")
    return name.replace(".base_layer.", ".").replace(".modules_to_save.", ".")


def _say_untied(model: Any) -> None:
    """An adapter on the embeddings alone parts them from the head; loading would tie them again unless told."""
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    if head is not None and embeddings.weight is not head.weight:
        model.config.tie_word_embeddings = False


def _merge_layer(
    name: str, layer: Any, dtype: torch.dtype, *, originals: Mapping[str, Tensor], what: str
) -> Iterator[LayerLoss]:
    """Merges one adapted layer, as PEFT does for its kind of adapter, but in float32: its weight, and an adapted bias.

    Args:
        name: of the layer.
        layer: PEFT's.
        dtype: of the merged weight.
        originals: the base model's own, where loading wrote others in their place.
        what: `KEY=FOLDER` of the adapter, for errors.
    """
    holder: nn.Module = layer.get_base_layer()
    if not isinstance(getattr(holder, "weight", None), nn.Parameter):
        raise ConfigError(f"{what}: {name} cannot be merged: a {type(layer).__name__} changes no single weight")
    parts = ["weight", *(["bias"] if any(getattr(layer, "lora_bias", {}).values()) else [])]
    before: dict[str, Tensor] = {part: value for part in parts if (value := getattr(holder, part)) is not None}
    exact = {part: nn.Parameter(value.detach().float().clone(), requires_grad=False) for part, value in before.items()}
    for part, value in exact.items():
        setattr(holder, part, value)
    try:
        layer.merge()
    except (ValueError, NotImplementedError, RuntimeError) as error:
        raise ConfigError(f"{what}: {name} cannot be merged: {error!s:.200}") from None
    for part, value in exact.items():
        cast = value.to(dtype)
        setattr(holder, part, nn.Parameter(cast, requires_grad=False))
        base = originals.get(f"{name}.{part}", before[part]).detach().float()
        yield _loss(name if part == "weight" else f"{name}.{part}", base, value, cast)


def _loss(name: str, base: Tensor, exact: Tensor, cast: Tensor) -> LayerLoss:
    """What casting one weight or bias loses.

    Args:
        name: of the layer, or of the tensor that the adapter holds whole.
        base: the base model's.
        exact: merged, in float32.
        cast: the same as it is kept.
    """
    lost, changed = exact - cast.float(), exact != base
    return LayerLoss(
        name=name,
        num_weights=int(changed.sum()),
        unmoved=int((changed & (cast.float() == base)).sum()),
        delta_norm=float((exact - base).norm()),
        lost_norm=float(lost.norm()),
        max_lost=float(lost.abs().max()),
    )
