"""sft_weight adds the chosen responses' own loss, pair by pair, however a batch is split into forwards."""

import math

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig

from alignlab.config.schema import PeftConfig
from alignlab.engine.scoring.forward import computing
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import lora_config
from alignlab.training.preference import TiltedDPOTrainer, chosen_nll

BETA = 0.3


def total_loss(base, pairs, references, folder, *, sft_weight, pairs_per_forward=None):
    chosen, rejected = zip(*pairs, strict=True)
    table = Dataset.from_dict(
        {
            "prompt_ids": [row.prompt_ids for row in chosen],
            "chosen_ids": [row.response_ids for row in chosen],
            "rejected_ids": [row.response_ids for row in rejected],
            "ref_chosen_logps": references[: len(pairs)],
            "ref_rejected_logps": references[len(pairs) :],
        }
    )
    options = {"loss_type": ["sigmoid"], "max_length": None, "precompute_ref_log_probs": True, "use_cpu": True}
    engine = TiltedDPOTrainer(
        model=base.model,
        args=DPOConfig(output_dir=str(folder), beta=BETA, report_to="none", **options),
        train_dataset=table,
        processing_class=base.tokenizer,
        peft_config=lora_config(PeftConfig(r=4, alpha=4.0, dropout=0.0, target_modules="all-linear")),
        sft_weight=sft_weight,
        pairs_per_forward=pairs_per_forward,
    )
    forwards = engine.data_collator(list(table))["forwards"]
    with computing(engine.model, engine.packing), torch.no_grad():
        losses = [float(engine._compute_loss(engine.model, dict(one), return_outputs=False)) for one in forwards]
    engine.model.unload()
    base.model.__dict__.pop("forward", None)
    return sum(losses), len(forwards)


@pytest.fixture
def pairs(encoded_rows):
    """Three pairs under prompts of their own, of different lengths."""
    rows = encoded_rows[:3]
    return [(row, type(row)(row.prompt_ids, row.response_ids[cut:])) for row, cut in zip(rows, (1, 3, 5), strict=True)]


def test_the_loss_is_dpos_and_the_chosen_responses(base, pairs, tmp_path):
    rows = [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]
    logps = response_logps(base.model, rows, batch_size=8, label="").double().tolist()
    references = [value + shift for value, shift in zip(logps, (0.5, -0.2, 0, 1, 0.3, -1), strict=True)]
    margins = [BETA * ((logps[n] - references[n]) - (logps[n + 3] - references[n + 3])) for n in range(3)]
    dpo = sum(math.log1p(math.exp(-margin)) for margin in margins) / 3
    own = sum(-logps[n] / len(rows[n].response_ids) for n in range(3)) / 3
    for weight in (0.0, 0.5, 2.0):
        got, _ = total_loss(base, pairs, references, tmp_path, sft_weight=weight)
        assert got == pytest.approx(dpo + weight * own, rel=2e-5)
    assert own > 0.1, "a term of nothing would pass the lines above"


def test_it_does_not_depend_on_how_a_batch_is_split(base, pairs, tmp_path):
    references = [-10.0] * 6
    whole, _ = total_loss(base, pairs, references, tmp_path, sft_weight=1.0)
    split, forwards = total_loss(base, pairs, references, tmp_path, sft_weight=1.0, pairs_per_forward=1)
    assert forwards == 3
    assert split == pytest.approx(whole, rel=1e-5)


def test_a_mean_over_all_tokens_would_depend_on_it():
    """Control: why the term is a mean of each response's mean, and not TRL's mean over the tokens of a forward."""
    log_probs = -torch.tensor([[1.0, 0, 0, 0], [3.0, 3, 3, 3], [9, 9, 9, 9], [9, 9, 9, 9]])
    mask = torch.tensor([[1, 0, 0, 0], [1, 1, 1, 1], [1, 1, 1, 1], [1, 1, 1, 1]])
    assert float(chosen_nll(log_probs, mask)) == pytest.approx((1 + 3) / 2)
    assert float(-log_probs[:2].sum() / mask[:2].sum()) == pytest.approx(13 / 5)
