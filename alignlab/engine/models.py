"""A causal language model behind its wrappers, and context managers around its forward.

Shape letters: R rows of the model's input, L positions of a row, H hidden width, N selected positions.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn


def causal_lm(model: Any) -> Any:
    """The causal language model inside DDP, FSDP or PEFT wrappers."""
    inner = getattr(model, "module", model)
    return inner.get_base_model() if hasattr(inner, "get_base_model") else inner


def device_of(model: Any) -> torch.device:
    """The device of a model's first parameter."""
    return next(model.parameters()).device  # type: ignore[no-any-return]


@contextmanager
def eval_mode(model: Any) -> Iterator[None]:
    """Turn off dropout and other training-time randomness; restore the mode on exit."""
    was_training = model.training
    model.eval()
    try:
        yield
    finally:
        model.train(was_training)


@contextmanager
def project_only(backbone: nn.Module, idx_N: Tensor) -> Iterator[None]:
    """Let the language model's head see selected hidden states alone, as one row of N.

    Args:
        backbone: the model below the head; its `last_hidden_state` (R, L, H) becomes (1, N, H).
        idx_N: flat indices (row * L + position).
    """

    def select(module: nn.Module, arguments: Any, output: Any) -> Any:
        hidden_RLH = output.last_hidden_state
        output.last_hidden_state = hidden_RLH.reshape(-1, hidden_RLH.shape[-1])[idx_N][None]
        return output

    handle = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()
