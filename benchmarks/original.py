"""The MODPO reference's way of training, re-created from its description in a few plain lines, to compare with.

Each step it pads prompt and response of every pair, lets the policy give full logits, and computes again what never
changes: the reference of the pairs, the margin adapter on texts that it tokenises anew, and that adapter's reference a
second time. After every quarter of the steps it does the same for the held-out pairs, policy included. For every w it
loads the model again. (Zhou et al. 2023, arXiv:2310.03708; no code of theirs is here.)

Shape letters: R rows (chosen, then rejected), T tokens, V vocabulary.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel, get_peft_model
from torch import Tensor
from torch.nn.functional import logsigmoid
from transformers import AutoModelForCausalLM, get_scheduler

from alignlab.config.schema import PeftConfig, TrainerConfig
from alignlab.models.adapters import lora_config
from alignlab.models.prompts import Encoded, PromptEncoder

Texts = tuple[str, str]
"""(prompt, response)."""


@dataclass(frozen=True)
class Step:
    """One batch: the rows as tokens, chosen ones first, and as the texts that they were made of."""

    rows: list[Encoded]
    texts: list[Texts]


@dataclass
class Rows:
    """Rows that went through a forward without gradient."""

    reference: int = 0
    margin: int = 0


def train_as_the_original(
    model: Path,
    margin: Path,
    encoder: PromptEncoder,
    steps: Sequence[Step],
    *,
    held_out: Sequence[Step],
    initial: dict[str, Tensor],
    w: float,
    beta: float,
    trainer: TrainerConfig,
    peft: PeftConfig,
    attention: str,
) -> tuple[list[float], Rows]:
    """The loss of every step, and the rows that were forwarded beside the policy's.

    Args:
        model: the base model's folder.
        margin: the adapter whose implicit reward, at the same beta, is the other objective's.
        encoder: tokenises the margin's texts.
        steps: the batches, in order.
        held_out: what the policy is evaluated on after every quarter of the steps, the original's setting.
        initial: the policy adapter's weights before the first step.
        w: weight of the trained objective.
        beta: KL strength, 1/nat.
        trainer: optimiser, schedule and length limit.
        peft: the policy's adapter.
        attention: eager, the only one in transformers 4.34 (which it pins) besides flash-attn, or sdpa.
    """
    policy = _policy(model, margin, initial, peft, attention)
    weights = [weight for name, weight in policy.named_parameters() if name in initial]
    optimizer = torch.optim.AdamW(weights, lr=trainer.learning_rate, weight_decay=trainer.weight_decay)
    warmup = int(-(-len(steps) * trainer.warmup_ratio // 1))
    schedule = get_scheduler(trainer.lr_scheduler_type, optimizer, warmup, len(steps))
    losses, counted = [], Rows()

    def loss_of(step: Step) -> Tensor:
        margins_R = _margin(policy, encoder, step.texts, counted, beta=beta, limit=trainer.max_length)
        return _loss(policy, step, margins_R, counted, w=w, beta=beta)

    for number, step in enumerate(steps, start=1):
        loss = loss_of(step)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(weights, trainer.max_grad_norm)
        optimizer.step()
        schedule.step()
        optimizer.zero_grad()
        losses.append(float(loss))
        if number % -(-len(steps) // 4) == 0:
            with torch.no_grad():
                for evaluated in held_out:
                    loss_of(evaluated)
    return losses, counted


def _policy(model: Path, margin: Path, initial: dict[str, Tensor], peft: PeftConfig, attention: str) -> PeftModel:
    """The base model, loaded anew, with the policy's adapter at its start and the margin's beside it."""
    base = AutoModelForCausalLM.from_pretrained(model, attn_implementation=attention).requires_grad_(False)
    policy = get_peft_model(base, lora_config(peft, base))
    missing = policy.load_state_dict(initial, strict=False).unexpected_keys
    assert not missing, missing
    policy.load_adapter(str(margin), "margin")
    policy.set_adapter("default")
    return policy


def _loss(policy: PeftModel, step: Step, margins_R: Tensor, counted: Rows, *, w: float, beta: float) -> Tensor:
    """MODPO's loss of one batch, with its reference computed once more."""
    with torch.no_grad(), policy.disable_adapter():
        ref_logps_R = _log_probs(policy, step.rows)
    counted.reference += len(step.rows)
    policy.train()
    log_ratio_R = _log_probs(policy, step.rows) - ref_logps_R
    return -logsigmoid((beta * _gap(log_ratio_R) - (1 - w) * _gap(margins_R)) / w).mean()


@torch.no_grad()
def _margin(
    policy: PeftModel, encoder: PromptEncoder, texts: list[Texts], counted: Rows, *, beta: float, limit: int
) -> Tensor:
    """Beta * log(pi_margin / pi_ref), shape (R,): both forwards, and the tokens, once more in every step."""
    rows = [_cut(encoder.encode(*text), limit) for text in texts]
    policy.eval()
    policy.set_adapter("margin")
    margin_R = _log_probs(policy, rows)
    with policy.disable_adapter():
        reference_R = _log_probs(policy, rows)
    policy.set_adapter("default")
    counted.margin += len(rows)
    counted.reference += len(rows)
    return beta * (margin_R - reference_R)


def _log_probs(model: Any, rows: Sequence[Encoded]) -> Tensor:
    """Summed log-probability of every response, float32, shape (R,), from the full logits of the padded batch."""
    texts = [row.prompt_ids + row.response_ids for row in rows]
    width = max(map(len, texts))
    ids_RT = torch.tensor([text + [0] * (width - len(text)) for text in texts])
    real_RT = torch.tensor([[1] * len(text) + [0] * (width - len(text)) for text in texts])
    scored_RT = real_RT.clone()
    for number, row in enumerate(rows):
        scored_RT[number, : len(row.prompt_ids)] = 0
    logps_RTV = model(input_ids=ids_RT, attention_mask=real_RT).logits[:, :-1].float().log_softmax(-1)
    token_logps_RT = logps_RTV.gather(2, ids_RT[:, 1:, None])[:, :, 0]
    return (token_logps_RT * scored_RT[:, 1:]).sum(1)


def _gap(values_R: Tensor) -> Tensor:
    chosen, rejected = values_R.chunk(2)
    return chosen - rejected


def _cut(row: Encoded, limit: int) -> Encoded:
    return Encoded(row.prompt_ids, row.response_ids[: limit - len(row.prompt_ids)])
