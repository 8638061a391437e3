"""Log-probabilities of responses, for policy, reference and implicit rewards alike; KL divergences from whole logits.

Shape letters: R rows of a batch, T tokens, N scored tokens, V vocabulary.
"""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignlab.engine.memory import batches_within, halving_on_oom, token_budget
from alignlab.engine.models import causal_lm, device_of, eval_mode
from alignlab.engine.scoring.forward import custom_head_models, engine_layers, fused_head, make_batch, score_batch
from alignlab.engine.scoring.probe import detect_batch_layout
from alignlab.io.prefix import common_prefix
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import progress

_LOGITS_OF_OWN_HEAD = 4
"""(N, V) tensors at once where a model's own logits replace the fused head."""
_LOGITS_OF_DIVERGENCE = 8
"""(N, V) tensors at once in `divergence`."""


@torch.no_grad()
def response_logps(
    model: Any, rows: Sequence[Encoded], *, label: str, batch_size: int | None = None, autocast: bool = False
) -> Tensor:
    """Log pi(response | prompt) of every row, summed over response tokens, nats, float64 on the CPU, shape (n,).

    Batches are sized by tokens against the free memory. Sums are float64: near -1000 nats float32 is 6e-5 wide, which
    MODPO at w=0.1 multiplies by ten.

    Args:
        model: a causal language model, with or without an adapter.
        rows: prompts and responses as tokens.
        label: text of the progress bar.
        batch_size: most rows of one forward; None for no limit beside memory.
        autocast: compute in bfloat16, sum in float64.
    """
    logps, device = torch.empty(len(rows), dtype=torch.float64), device_of(model)
    longest = max((_length(row) for row in rows), default=0)
    batch_layout = detect_batch_layout(model, longest=longest, autocast=autocast)
    own_head = causal_lm(model) in custom_head_models
    max_tokens = token_budget(model, logits_copies=_LOGITS_OF_OWN_HEAD if own_head else 0)
    batches = row_batches(rows, max_tokens=max_tokens, max_rows=batch_size, is_tree=batch_layout.is_tree)
    precision = torch.autocast(device.type, dtype=torch.bfloat16, enabled=autocast)

    def score(batch: list[int]) -> Tensor:
        tokens = make_batch([rows[index] for index in batch], batch_layout)
        tokens = (tokens.pin_memory() if device.type == "cuda" else tokens).to(device, non_blocking=True)
        sums_R: Tensor = score_batch(model, tokens).log_probs.double().sum(1)
        return sums_R

    with (
        progress(label, len(rows)) as bar,
        precision,
        eval_mode(model),
        fused_head(model),
        engine_layers(model, batch_layout),
    ):
        for batch, batch_logps in _one_ahead(halving_on_oom(batches, score, label=label)):
            logps[batch] = batch_logps.cpu()
            bar.advance(len(batch))
    return logps


def _one_ahead(results: Iterator[tuple[list[int], Tensor]]) -> Iterator[tuple[list[int], Tensor]]:
    """Start the next batch before a result is read: a GPU never waits for the next batch's layout."""
    previous = None
    for current in results:
        if previous is not None:
            yield previous
        previous = current
    if previous is not None:
        yield previous


def response_logits(model: Any, rows: Sequence[Encoded]) -> tuple[Tensor, Tensor, Tensor]:
    """Logits that predict response tokens, float32: (logits (N, V), the tokens (N,), their row indices (N,)).

    Only those positions are projected to the vocabulary; prompts and padding are not.
    """
    device = device_of(model)
    width = max(_length(row) for row in rows)
    ids_RT = torch.zeros(len(rows), width, dtype=torch.long)
    real_RT = torch.zeros(len(rows), width, dtype=torch.long)
    source_RT = torch.zeros(len(rows), width, dtype=torch.bool)
    for index, row in enumerate(rows):
        tokens = row.prompt_ids + row.response_ids
        ids_RT[index, : len(tokens)] = torch.tensor(tokens)
        real_RT[index, : len(tokens)] = 1
        source_RT[index, len(row.prompt_ids) - 1 : len(tokens) - 1] = True
    ids_RT, source_RT = ids_RT.to(device), source_RT.to(device)
    positions = source_RT.any(dim=0).nonzero()[:, 0]
    logits = model(ids_RT, attention_mask=real_RT.to(device), use_cache=False, logits_to_keep=positions).logits
    wanted = source_RT[:, positions]
    targets_N = ids_RT.roll(-1, dims=1)[source_RT]
    return logits[wanted].float(), targets_N, wanted.nonzero()[:, 0]


def _length(row: Encoded) -> int:
    return len(row.prompt_ids) + len(row.response_ids)


def row_batches(
    rows: Sequence[Encoded], *, max_tokens: int, max_rows: int | None, is_tree: bool, whole_first: bool = False
) -> list[list[int]]:
    """Row indices in batches.

    For trees in sorted order, so that shared prefixes meet. For padded batches longest first, so that memory runs out
    at once or never.

    Args:
        rows: to score.
        max_tokens: distinct tokens of a batch at most.
        max_rows: rows of a batch at most.
        is_tree: whether tokens that rows share count once.
        whole_first: count a batch's first row whole, also where it shares a prefix with the batch before.
    """
    whole = None
    if not is_tree:
        order = sorted(range(len(rows)), key=lambda index: -_length(rows[index]))
        sizes = [_length(rows[index]) for index in order]
    else:
        texts = [row.prompt_ids + row.response_ids for row in rows]
        order = sorted(range(len(rows)), key=lambda index: texts[index])
        sizes = [len(texts[index]) for index in order]
        whole = list(sizes) if whole_first else None
        for rank, (left, right) in enumerate(itertools.pairwise(order), start=1):
            sizes[rank] -= common_prefix(texts[left], texts[right])
    batches = batches_within(sizes, max_tokens=max_tokens, max_rows=max_rows, padded=not is_tree, first_sizes=whole)
    return [[order[rank] for rank in batch] for batch in batches]


@dataclass(frozen=True)
class Divergence:
    """Divergence of a policy from its reference along responses that it sampled, nats, each of shape (n,)."""

    kl: Tensor
    """KL of the next-token distributions, summed over positions: never negative. Its mean estimates KL(pi||pi_ref)."""
    log_ratio: Tensor
    """log pi - log pi_ref of the sampled tokens: the same mean, more variance, but exact for each response."""


@torch.no_grad()
def divergence(model: Any, rows: Sequence[Encoded], *, label: str, batch_size: int | None = None) -> Divergence:
    """Divergence of an adapted model from its base, along responses sampled at temperature 1 without truncation.

    In `kl`, the sum over the whole vocabulary replaces the sampled token's log-ratio at each position, which removes
    most of the variance. Batches are sized by tokens against the free memory.

    Args:
        model: a PEFT model; its base is the reference.
        rows: responses that the adapted model sampled.
        label: text of the progress bar.
        batch_size: most rows of one forward; None for no limit beside memory.

    Source: Amini et al. 2025, arXiv:2504.10637 (the Rao-Blackwellised estimator).
    """
    kl, log_ratio = torch.empty(len(rows)), torch.empty(len(rows))
    max_tokens = token_budget(model, logits_copies=_LOGITS_OF_DIVERGENCE)
    batches = row_batches(rows, max_tokens=max_tokens, max_rows=batch_size, is_tree=False)

    def compare(batch: list[int]) -> tuple[Tensor, Tensor]:
        return _divergence_of_batch(model, [rows[index] for index in batch])

    with progress(label, len(rows)) as bar:
        for batch, (kl_R, ratio_R) in halving_on_oom(batches, compare, label=label):
            kl[batch], log_ratio[batch] = kl_R.cpu(), ratio_R.cpu()
            bar.advance(len(batch))
    return Divergence(kl, log_ratio)


def _divergence_of_batch(model: Any, rows: list[Encoded]) -> tuple[Tensor, Tensor]:
    """(KL, log-ratio) of every row, (R,) each."""
    logits_NV, targets_N, row_of_N = response_logits(model, rows)
    with model.disable_adapter():
        ref_logits_NV, _, _ = response_logits(model, rows)
    logp_NV, ref_logp_NV = torch.log_softmax(logits_NV, -1), torch.log_softmax(ref_logits_NV, -1)
    gap_NV = logp_NV - ref_logp_NV
    kl_N = (logp_NV.exp() * gap_NV).sum(-1).clamp(min=0)  # a sum of float32 terms can fall below 0 by rounding
    ratio_N = gap_NV.gather(-1, targets_N[:, None])[:, 0]
    zeros_R = torch.zeros(len(rows), device=kl_N.device)
    return zeros_R.index_add(0, row_of_N, kl_N), zeros_R.index_add(0, row_of_N, ratio_N)
