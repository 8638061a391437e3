"""Which modules of a model LoRA can adapt; also of a model whose weights are not loaded."""

from collections.abc import Iterator
from pathlib import Path

import torch
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM
from transformers.pytorch_utils import Conv1D

ERRORS = (OSError, ValueError, KeyError, AttributeError, TypeError, ImportError, RuntimeError)
"""Errors by which transformers refuses a config.json."""


def layers_of(model: nn.Module) -> Iterator[str]:
    """Names of a model's linear layers, embeddings and convolutions.

    Quantised layers, which keep their weight as a buffer, are among them; norms, routers and joined experts are not.
    """
    kinds = nn.Linear | nn.Embedding | Conv1D | nn.Conv1d | nn.Conv2d | nn.Conv3d
    for name, module in model.named_modules():
        if isinstance(module, kinds) or any(buffer.ndim == 2 for buffer in module.buffers(recurse=False)):
            yield name


def layers_by_config(folder: Path) -> list[str]:
    """`layers_of` the model that a folder's config.json describes; empty if it cannot be built: loading it says why."""
    try:
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
        with torch.device("meta"):
            return list(layers_of(AutoModelForCausalLM.from_config(config)))
    except ERRORS:
        return []
