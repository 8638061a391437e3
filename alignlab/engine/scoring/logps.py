"""Log-probabilities of responses: one implementation for policy, reference and implicit rewards.

Shape letters: R rows of a batch, T tokens, N scored tokens, V vocabulary.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignlab.engine.scoring.forward import computing, evaluating, fused_head, lay_out, score_layout
from alignlab.engine.scoring.probe import packing_of
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import track


@torch.no_grad()
def response_logps(
    model: Any, rows: Sequence[Encoded], *, batch_size: int, label: str, autocast: bool = False
) -> Tensor:
    """Log pi(response | prompt) of every row, summed over response tokens, nats, float64 on the CPU, shape (n,).

    Near -1000 nats float32 is 6e-5 wide, which MODPO at w=0.1 multiplies by ten: the sums are kept in float64.

    Args:
        model: a causal language model, with or without an adapter.
        rows: prompts and responses as tokens.
        batch_size: rows of one forward.
        label: what the progress bar says.
        autocast: compute in bfloat16, sum in float64.
    """
    logps, device = torch.empty(len(rows), dtype=torch.float64), _device(model)
    longest = max((len(row.prompt_ids) + len(row.response_ids) for row in rows), default=0)
    packing = packing_of(model, longest=longest, autocast=autocast)
    batches = _batches_by_text(rows, batch_size) if packing.is_forest else _batches_by_length(rows, batch_size)
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)
    with precision, evaluating(model), fused_head(model), computing(model, packing):
        under_way: deque[tuple[list[int], Tensor]] = deque()
        for places in track(batches, label=label):
            layout = lay_out([rows[place] for place in places], packing)
            layout = (layout.pin_memory() if device.type == "cuda" else layout).to(device, non_blocking=True)
            under_way.append((places, score_layout(model, layout).log_probs.double().sum(1)))
            if len(under_way) > 1:  # a GPU is never left waiting for the next batch's layout
                _fetch(*under_way.popleft(), into=logps)
        for places, scored in under_way:
            _fetch(places, scored, into=logps)
    return logps


def _fetch(places: list[int], logps: Tensor, *, into: Tensor) -> None:
    into[places] = logps.cpu()


def response_logits(model: Any, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits where a response token comes next, float32: (logits (N, V), the tokens (N,), their rows (N,)).

    Only those positions are projected to the vocabulary; prompts and padding are not.
    """
    device = _device(model)
    width = max(len(row.prompt_ids) + len(row.response_ids) for row in rows)
    ids_RT = torch.zeros(len(rows), width, dtype=torch.long)
    real_RT = torch.zeros(len(rows), width, dtype=torch.long)
    before_RT = torch.zeros(len(rows), width, dtype=torch.bool)
    for number, row in enumerate(rows):
        tokens = row.prompt_ids + row.response_ids
        ids_RT[number, : len(tokens)] = torch.tensor(tokens)
        real_RT[number, : len(tokens)] = 1
        before_RT[number, len(row.prompt_ids) - 1 : len(tokens) - 1] = True
    ids_RT, before_RT = ids_RT.to(device), before_RT.to(device)
    positions = before_RT.any(dim=0).nonzero()[:, 0]
    logits = model(ids_RT, attention_mask=real_RT.to(device), use_cache=False, logits_to_keep=positions).logits
    wanted = before_RT[:, positions]
    targets_N = ids_RT.roll(-1, dims=1)[before_RT]
    return logits[wanted].float(), targets_N, wanted.nonzero()[:, 0]


def _batches_by_text(rows: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of neighbours in sorted order, so that shared prefixes meet."""
    order = sorted(range(len(rows)), key=lambda place: rows[place].prompt_ids + rows[place].response_ids)
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


def _batches_by_length(rows: Sequence[Encoded], batch_size: int) -> list[list[int]]:
    """Row numbers in batches of like length, longest first, so that memory runs out at once or never."""
    order = sorted(range(len(rows)), key=lambda place: -len(rows[place].prompt_ids) - len(rows[place].response_ids))
    return [order[start : start + batch_size] for start in range(0, len(order), batch_size)]


@dataclass(frozen=True)
class Divergence:
    """How far a policy is from its reference along responses that it sampled, nats, each of shape (n,)."""

    kl: Tensor
    """KL of the next-token distributions, summed over positions: never negative. Its mean estimates KL(pi||pi_ref)."""
    log_ratio: Tensor
    """log pi - log pi_ref of the sampled tokens: the same mean, more variance, but exact for each response."""


@torch.no_grad()
def divergence(model: Any, rows: Sequence[Encoded], *, batch_size: int, label: str) -> Divergence:
    """Divergence of an adapted model from its base, along responses sampled at temperature 1 without truncation.

    In `kl`, the sum over the whole vocabulary replaces the sampled token's log-ratio at each position, which removes
    most of the variance.

    Args:
        model: a PEFT model; its base is the reference.
        rows: responses that the adapted model sampled.
        batch_size: rows of one forward.
        label: what the progress bar says.

    Source: Amini et al. 2025, arXiv:2504.10637 (the Rao-Blackwellised estimator).
    """
    kl, log_ratio = torch.empty(len(rows)), torch.empty(len(rows))
    for places in track(_batches_by_length(rows, batch_size), label=label):
        batch = [rows[place] for place in places]
        logits_NV, targets_N, row_of_N = response_logits(model, batch)
        with model.disable_adapter():
            ref_logits_NV, _, _ = response_logits(model, batch)
        logp_NV, ref_logp_NV = torch.log_softmax(logits_NV, -1), torch.log_softmax(ref_logits_NV, -1)
        gap_NV = logp_NV - ref_logp_NV
        kl_N = (logp_NV.exp() * gap_NV).sum(-1).clamp(min=0)  # a sum of float32 terms can fall below 0 by rounding
        ratio_N = gap_NV.gather(-1, targets_N[:, None])[:, 0]
        zeros = torch.zeros(len(batch), device=kl_N.device)
        kl[places] = zeros.index_add(0, row_of_N, kl_N).cpu()
        log_ratio[places] = zeros.index_add(0, row_of_N, ratio_N).cpu()
    return Divergence(kl, log_ratio)


def _device(model: Any) -> torch.device:
    return next(model.parameters()).device  # type: ignore[no-any-return]
