"""Weights that are not finite are refused at load, by tensor name."""

from collections.abc import Mapping

import torch
from torch import Tensor

from alignlab.errors import ConfigError


def refuse_non_finite(what: str, weights: Mapping[str, Tensor], *, remedy: str = "restore or train it again") -> None:
    """Refuse tensors that hold NaN or infinity.

    Args:
        what: `KEY=PATH`, which the error begins with.
        weights: tensors by name; those of integers pass.
        remedy: what to do.

    Raises:
        ConfigError: naming the first such tensor and how many numbers of it are not finite.
    """
    for name, tensor in weights.items():
        if not tensor.is_floating_point() or tensor.device.type == "meta":
            continue
        if not _all_finite(tensor):
            count = int((~torch.isfinite(tensor.float())).sum())
            rule = f"{count} of its {tensor.numel()} numbers are NaN or infinite; {remedy}"
            raise ConfigError(f"{what}: the tensor {name} is damaged: {rule}")


def _all_finite(tensor: Tensor) -> bool:
    """Sum of 0 * x is 0 where all are finite; cheaper than a mask of a large tensor."""
    return bool(torch.isfinite(tensor.detach().float().mul(0).sum()))
