"""Drawing the next token: temperature and nucleus, from uniform numbers that belong to the sample.

Shape letters: R rows, V vocabulary, K blocks of the vocabulary.
"""

import hashlib
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

Floats = NDArray[np.float64]

_BLOCK = 64
"""Tokens of the vocabulary whose probabilities are added up first, in float32; only the sums run in double."""

_MOST_ATTEMPTS = 64
"""After this many draws outside the nucleus, 0.3**64 at top_p=0.7, the most probable token is taken."""

NO_TOKEN = -1
"""In place of a token where the logits are not finite."""


@dataclass(frozen=True)
class Sampling:
    """How a token is drawn."""

    temperature: float
    """0 takes the most probable token."""
    top_p: float
    """Nucleus: the most probable tokens that together reach it; those as probable as its last one belong to it."""


class RandomStream:
    """Uniform numbers of one sample, one a token and attempt, from (seed, sample id) alone.

    A second attempt at one token does not move the numbers of the next token.

    Args:
        sample_id: of the sample.
        seed: of the run.
        count: most tokens of the sample.
    """

    def __init__(self, sample_id: str, *, seed: int, count: int) -> None:
        key = hashlib.sha256(f"{seed}/{sample_id}".encode()).digest()
        self._stream = np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little")))
        self._count = count
        self._attempts: list[Floats] = []

    def attempt(self, number: int) -> Floats:
        """The numbers of one attempt at every token, float64 in [0, 1), shape (count,)."""
        while len(self._attempts) <= number:
            self._attempts.append(self._stream.random(self._count))
        return self._attempts[number]


Redraw = Callable[[list[int], int], Tensor]
"""(rows, attempt) -> those rows' numbers for one more attempt at their tokens, float64."""


def draw_tokens(logits_RV: Tensor, u_R: Tensor, redraw: Redraw, sampling: Sampling) -> Tensor:
    """One token a row, shape (R,), on the logits' device.

    The nucleus is drawn from without sorting: a token drawn from the whole distribution is kept if the tokens that are
    more probable than it hold less than top_p, else it and all less probable ones are out and the row draws again.

    A row whose logits hold NaN or +inf has no distribution; its token is NO_TOKEN, for the caller to see where it reads
    the tokens.

    Args:
        logits_RV: in any float type; computed in float32.
        u_R: uniform numbers, float64.
        redraw: numbers for the rows that draw again.
        sampling: temperature and nucleus.
    """
    if sampling.temperature == 0:
        greatest_R, tokens_R = logits_RV.max(-1)
        return tokens_R.where(greatest_R.isfinite(), NO_TOKEN)
    logits_RV = logits_RV.float()
    if sampling.temperature != 1:  # each pass over a large vocabulary takes time
        logits_RV = logits_RV / sampling.temperature
    probs_RV = torch.softmax(logits_RV, dim=-1)
    known_R = probs_RV[:, 0].isfinite()  # softmax makes all of a row NaN, or nothing
    tokens_R = _inverse_cdf(probs_RV, u_R)
    if sampling.top_p < 1:
        _redraw_outside_nucleus(tokens_R, probs_RV, redraw, sampling.top_p)
    return tokens_R.where(known_R, NO_TOKEN)


def no_distribution(name: str) -> FloatingPointError:
    """The error of a sample whose token is NO_TOKEN."""
    return FloatingPointError(f"sample {name}: the model's logits are NaN or infinite; look at its weights")


def _redraw_outside_nucleus(tokens_R: Tensor, probs_RV: Tensor, redraw: Redraw, top_p: float) -> None:
    """Replace the tokens that are not in the nucleus."""
    rows = torch.arange(len(probs_RV), device=probs_RV.device)
    for attempt in range(1, _MOST_ATTEMPTS):
        chosen_R1 = probs_RV.gather(-1, tokens_R[rows, None])
        above_RV = torch.where(probs_RV > chosen_R1, probs_RV, 0)
        outside = (above_RV.sum(-1) >= top_p).nonzero()[:, 0]
        if len(outside) == 0:
            return
        rows, probs_RV = rows[outside], above_RV[outside]
        tokens_R[rows] = _inverse_cdf(probs_RV, redraw(rows.tolist(), attempt))
    tokens_R[rows] = probs_RV.argmax(-1)


def _inverse_cdf(probs_RV: Tensor, u_R: Tensor) -> Tensor:
    """First token at which the cumulative probability passes number * total, shape (R,)."""
    rows, size = probs_RV.shape
    rest = -size % _BLOCK
    padded_RV = (
        torch.nn.functional.pad(probs_RV, (0, rest)) if rest else probs_RV
    )  # pad copies even where nothing is added
    blocks_RKB = padded_RV.view(rows, -1, _BLOCK)
    ends_RK = blocks_RKB.sum(-1).double().cumsum(-1)
    total_R1 = ends_RK[:, -1:]
    wanted_R1 = torch.minimum(u_R[:, None] * total_R1, torch.nextafter(total_R1, torch.zeros_like(total_R1)))
    block_R1 = torch.searchsorted(ends_RK, wanted_R1, right=True)  # ends above the number: a block that has weight
    block_R1 = block_R1.clamp(max=ends_RK.shape[-1] - 1)  # NaN is above no number
    start_R1 = torch.where(block_R1 > 0, ends_RK.gather(-1, (block_R1 - 1).clamp(min=0)), 0)
    inside_RB = blocks_RKB[torch.arange(rows, device=probs_RV.device), block_R1[:, 0]]
    offset_R1 = torch.searchsorted(inside_RB.double().cumsum(-1), wanted_R1 - start_R1, right=True)
    # Two roundings of one sum: the number can lie past the block's last token that has weight.
    last_R1 = (_BLOCK - 1) - (inside_RB > 0).flip(-1).int().argmax(-1, keepdim=True)
    tokens_R1: Tensor = block_R1 * _BLOCK + torch.minimum(offset_R1, last_R1)
    return tokens_R1[:, 0].clamp(max=size - 1)
