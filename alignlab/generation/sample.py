"""Sampling responses with transformers, reproducibly: the randomness of a response comes from its id alone.

Shape letters: R responses of a batch, V vocabulary.
"""

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from alignlab.config.schema import GeneratorConfig
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import track


@dataclass(frozen=True)
class SampleRequest:
    """One response to draw."""

    id: str
    prompt_ids: list[int]


@torch.no_grad()
def sample_responses(
    model: Any, requests: Sequence[SampleRequest], *, config: GeneratorConfig, seed: int, eos: int, pad: int, label: str
) -> list[Encoded]:
    """Draws one response for every request, in the order given; each ends with EOS unless the limit cuts it.

    Args:
        model: a causal language model in evaluation mode.
        requests: what to answer; equal ids draw equal responses.
        config: temperature, top_p, length and batch size.
        seed: changes every draw.
        eos: token that ends a response.
        pad: token that fills the shorter prompts of a batch.
        label: what the progress bar says.
    """
    order = sorted(range(len(requests)), key=lambda place: len(requests[place].prompt_ids))
    batches = [order[start : start + config.batch_size] for start in range(0, len(order), config.batch_size)]
    drawn: list[Encoded | None] = [None] * len(requests)
    for places in track(batches, label=label):
        batch = [requests[place] for place in places]
        for place, ids in zip(places, _sample_batch(model, batch, config, seed, eos, pad), strict=True):
            drawn[place] = Encoded(requests[place].prompt_ids, ids)
    return [row for row in drawn if row is not None]


def _sample_batch(
    model: Any, batch: Sequence[SampleRequest], config: GeneratorConfig, seed: int, eos: int, pad: int
) -> list[list[int]]:
    device = next(model.parameters()).device
    width = max(len(request.prompt_ids) for request in batch)
    ids = torch.tensor([[pad] * (width - len(r.prompt_ids)) + r.prompt_ids for r in batch], device=device)
    mask = torch.tensor([[0] * (width - len(r.prompt_ids)) + [1] * len(r.prompt_ids) for r in batch], device=device)
    uniforms = torch.tensor(
        np.stack([_uniforms(request.id, seed, config.max_new_tokens) for request in batch]), device=device
    )
    positions = (mask.cumsum(-1) - 1).clamp(min=0)
    finished = torch.zeros(len(batch), dtype=torch.bool, device=device)
    tokens, cache = [], None
    for step in range(config.max_new_tokens):
        output = model(
            ids, attention_mask=mask, position_ids=positions, past_key_values=cache, use_cache=True, logits_to_keep=1
        )
        cache = output.past_key_values
        drawn = _draw(output.logits[:, -1].float(), uniforms[:, step], config.temperature, config.top_p)
        tokens.append(drawn.masked_fill(finished, eos))
        finished |= drawn == eos
        if finished.all():
            break
        ids = tokens[-1][:, None]
        mask = torch.cat([mask, mask.new_ones(len(batch), 1)], dim=1)
        positions = positions[:, -1:] + 1
    return [_until(row, eos) for row in torch.stack(tokens, dim=1).tolist()]


def _draw(logits_RV: Tensor, uniforms_R: Tensor, temperature: float, top_p: float) -> Tensor:
    """Inverse-CDF draws, shape (R,): the first token at which the cumulative probability passes the uniform number."""
    probs_RV = torch.softmax(logits_RV / temperature, dim=-1).double()
    if top_p < 1:
        ordered_RV, places_RV = probs_RV.sort(dim=-1, descending=True)
        outside_RV = ordered_RV.cumsum(-1) - ordered_RV >= top_p  # the token that crosses top_p stays in
        probs_RV = probs_RV.masked_fill(outside_RV.gather(-1, places_RV.argsort(-1)), 0)
    cumulative_RV = probs_RV.cumsum(-1)
    thresholds = uniforms_R[:, None] * cumulative_RV[:, -1:]
    return torch.searchsorted(cumulative_RV, thresholds, right=True)[:, 0].clamp(max=probs_RV.shape[-1] - 1)


def _uniforms(request_id: str, seed: int, count: int) -> "np.ndarray[Any, np.dtype[np.float64]]":
    key = hashlib.sha256(f"{seed}/{request_id}".encode()).digest()
    return np.random.Generator(np.random.Philox(key=int.from_bytes(key[:16], "little"))).random(count)


def _until(tokens: list[int], eos: int) -> list[int]:
    return tokens[: tokens.index(eos) + 1] if eos in tokens else tokens
