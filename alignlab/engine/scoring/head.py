"""Log-probabilities of given tokens under a frozen head, on a CPU: two projections a step where TRL's head takes three.

The gradient of log p(t) by the hidden state h is W_t - p W, whatever the loss; the loss only scales it, token by token.
So it is computed in the forward pass, from the probabilities at hand, and the backward pass projects nothing again (as
Liger's fused cross-entropy does, arXiv:2410.10989). TRL's head stays for the rest: GPUs, where its kernels are at home,
heads that are trained, capped and scaled logits.

Shape letters: N scored tokens, C of one chunk, H hidden width, V vocabulary.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.distributed.tensor import DTensor
from trl.trainer import utils as trl_utils

CHUNK = 1 << 22
"""Logits at hand at a time: rows enough for a matrix product at full speed, few enough for a processor's last cache."""

LEAST_LOGP = -80.0
"""Below it a probability is no longer a normal float32, whose logarithm would be off; the logits tell it then."""


class FrozenHead(torch.autograd.Function):
    """Of each of N tokens log p(target | hidden), float32, and if `fully` what the log says of it (else None each).

    That is the entropy, the mean logit, and whether the target is the likeliest; none of them has a gradient here.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden_NH: Tensor, weight_VH: Tensor, bias_V: Tensor | None, targets_N: Tensor, fully: bool
    ) -> tuple[Tensor | None, ...]:
        """Computes the gradient too, where one is wanted."""
        logps_N, entropy_N, mean_N = hidden_NH.new_empty(3, len(hidden_NH), dtype=torch.float32)
        is_top_N = torch.empty_like(targets_N, dtype=torch.bool)
        slopes_NH = torch.empty_like(hidden_NH) if ctx.needs_input_grad[0] else None
        size = max(1, CHUNK // len(weight_VH))
        for start in range(0, len(hidden_NH), size):
            chunk = slice(start, start + size)
            targets_C = targets_N[chunk]
            logits_CV = hidden_NH[chunk].to(weight_VH.dtype) @ weight_VH.t()
            if bias_V is not None:
                logits_CV += bias_V
            logits_CV = logits_CV.float()
            if fully:
                mean_N[chunk] = logits_CV.mean(-1)
                is_top_N[chunk] = logits_CV.argmax(-1) == targets_C
            odds_CV = torch.softmax(logits_CV, -1, out=logits_CV)
            logps_N[chunk] = odds_CV.gather(1, targets_C[:, None])[:, 0].log()
            if fully:
                entropy_N[chunk] = torch.special.entr(odds_CV).sum(-1)
            if slopes_NH is not None:
                slopes_NH[chunk] = weight_VH[targets_C] - odds_CV.to(weight_VH.dtype) @ weight_VH
        lost_N = logps_N < LEAST_LOGP
        if lost_N.any():
            logits_CV = nn.functional.linear(hidden_NH[lost_N].to(weight_VH.dtype), weight_VH, bias_V).float()
            logps_N[lost_N] = logits_CV.log_softmax(-1).gather(1, targets_N[lost_N, None])[:, 0]
        if slopes_NH is not None:
            ctx.save_for_backward(slopes_NH)
        if not fully:
            return logps_N, None, None, None
        ctx.mark_non_differentiable(entropy_N, mean_N, is_top_N)
        return logps_N, entropy_N, mean_N, is_top_N

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        """Scales what the forward pass has computed."""
        (slopes_NH,) = ctx.saved_tensors
        return grads[0].to(slopes_NH.dtype)[:, None] * slopes_NH, None, None, None, None


class _Head:
    """Stands in the place of TRL's head function, and calls it where FrozenHead does not serve."""

    usual = trl_utils._ChunkedLogProbFunction

    @classmethod
    def apply(
        cls,
        hidden_NH: Tensor,
        weight_VH: Tensor,
        bias_V: Tensor | None,
        targets_N: Tensor,
        temperature: float,
        chunk_size: int,
        softcap: float | None,
        scale: float,
        fields: tuple[str, ...],
    ) -> Any:
        """TRL's call: (log-probabilities, entropy, log of summed squares, mean logits, is the likeliest), each (N,)."""
        trained = weight_VH.requires_grad or (bias_V is not None and bias_V.requires_grad)
        plain = softcap is None and scale == temperature == 1.0 and "log_sum_sq_probs" not in fields
        if hidden_NH.device.type != "cpu" or trained or not plain or isinstance(weight_VH, DTensor):
            return cls.usual.apply(
                hidden_NH, weight_VH, bias_V, targets_N, temperature, chunk_size, softcap, scale, fields
            )
        given = (hidden_NH, weight_VH, bias_V, targets_N, len(fields) > 1)
        logps_N, entropy_N, mean_N, is_top_N = FrozenHead.apply(*given)  # type: ignore[no-untyped-call]
        return logps_N, entropy_N, None, mean_N, is_top_N


@contextmanager
def frozen_head() -> Iterator[None]:
    """TRL's head with FrozenHead where that serves."""
    before = trl_utils._ChunkedLogProbFunction
    trl_utils._ChunkedLogProbFunction = _Head
    try:
        yield
    finally:
        trl_utils._ChunkedLogProbFunction = before
