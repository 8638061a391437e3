"""Probability of given next tokens after each of many prompts; shared prefixes of prompts are computed once.

Shape letters: R prompts of a batch, N their distinct ends, V vocabulary, G groups of tokens.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor

from alignlab.engine.memory import halving_on_oom, token_budget
from alignlab.engine.models import causal_lm, device_of, eval_mode, project_only
from alignlab.engine.scoring.forward import engine_layers, make_batch, model_inputs
from alignlab.engine.scoring.layout import TokenBatch
from alignlab.engine.scoring.logps import row_batches
from alignlab.engine.scoring.probe import detect_batch_layout
from alignlab.models.prompts import Encoded

_ANY_TOKEN = 0
"""Stands behind each prompt, so that the position before it, the prompt's last, is one to predict from."""
_PROMPTS_A_BATCH = 8
"""A batch holds as many tokens as so many prompts if memory allows: each reads again what all prompts begin with."""
_LOGITS_COPIES = 3
"""(N, V) tensors at once: logits as they come, in float32, and their softmax."""
_LOGITS_BYTES = 256 << 20
"""Most memory of these."""


@torch.no_grad()
def next_token_masses(
    model: Any, prompts: Sequence[list[int]], groups: Sequence[Sequence[int]], *, max_rows: int | None, label: str
) -> Iterator[tuple[list[int], Tensor]]:
    """(indices of prompts, the probability of each group as their next token, float32 on the CPU, (R, G)), by batches.

    Batches are sized by distinct tokens against the free memory, and halved when memory runs out.

    Args:
        model: a causal language model.
        prompts: tokens of each prompt, at least one.
        groups: token ids whose probabilities are summed.
        max_rows: most prompts of one forward; None for no limit beside memory.
        label: names the work in messages.
    """
    rows = [Encoded(ids, [_ANY_TOKEN]) for ids in prompts]
    device, longest = device_of(model), max((len(ids) + 1 for ids in prompts), default=0)
    batch_layout = detect_batch_layout(model, longest=longest)
    vocabulary = causal_lm(model).get_input_embeddings().num_embeddings
    most = max(1, _LOGITS_BYTES // (4 * _LOGITS_COPIES * vocabulary))
    max_rows = most if max_rows is None else min(max_rows, most)
    max_tokens = token_budget(model)
    if batch_layout.is_tree:
        in_memory = token_budget(model, limit_operations=False)
        max_tokens = max(max_tokens, min(_PROMPTS_A_BATCH * longest, in_memory))
    batches = row_batches(
        rows, max_tokens=max_tokens, max_rows=max_rows, is_tree=batch_layout.is_tree, whole_first=True
    )

    def compute(batch: list[int]) -> Tensor:
        tokens = make_batch([rows[index] for index in batch], batch_layout).to(device)
        share_NV = _shares(model, tokens)
        ends_R = torch.tensor([len(prompts[index]) - 1 for index in batch], device=device)
        share_RV = share_NV[tokens.scored_idx_BT.gather(1, ends_R[:, None])[:, 0]]
        return torch.stack([share_RV[:, list(group)].sum(-1) for group in groups], dim=-1).cpu()

    with eval_mode(model), engine_layers(model, batch_layout):
        yield from halving_on_oom(batches, compute, label=label)


def _shares(model: Any, batch: TokenBatch) -> Tensor:
    """Next-token probabilities by the model's own head at the positions that the batch scores from, (N, V)."""
    with project_only(causal_lm(model).base_model, batch.sources_N):
        logits_1NV: Tensor = model(**model_inputs(batch)).logits
    return logits_1NV[0].float().softmax(-1)
