"""Parts shared by the two forms of attention over shared prefixes, both plugged into transformers' interface.

Scoring (`scoring.attention`) has many new tokens a row and needs gradients: it gathers the keys of a row's path and
calls SDPA or FlexAttention. Decoding (`sampling.shared`) has one new token a sequence at every step: gathering would
copy every key at every token, so it multiplies by the cached keys of a prefix in place. One kernel for both would cost
one of them its speed; what they refuse, how scores are capped and how a model is switched over stands here once.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor


def require_plain_attention(s_aux: Tensor | None, position_bias: Tensor | None) -> None:
    """Refuse what neither form computes.

    Args:
        s_aux: attention sinks, as transformers passes them along.
        position_bias: an additive bias by position.

    Raises:
        NotImplementedError: if either is given; the start-up probes then choose another way for the model.
    """
    if s_aux is not None or position_bias is not None:
        raise NotImplementedError("attention sinks and position biases cannot share prefixes")


def soft_capped(scores: Tensor, cap: float | None) -> Tensor:
    """Scores squashed into (-cap, cap) by tanh, any shape; None leaves them."""
    return scores if cap is None else cap * torch.tanh(scores / cap)


@contextmanager
def attention_implementation(model: Any, name: str) -> Iterator[None]:
    """Switch a transformers model to a registered attention; restore its own on exit.

    Raises:
        NotImplementedError: if the model's attention does not go through transformers' interface.
    """
    before = model.config._attn_implementation
    model.set_attn_implementation(name)
    try:
        if model.config._attn_implementation != name:
            raise NotImplementedError("its attention does not go through transformers' interface")
        yield
    finally:
        model.set_attn_implementation(before)
