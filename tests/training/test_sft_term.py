"""sft_weight adds the chosen responses' own loss, pair by pair, however a batch is split into forwards."""

import math

import pytest
import torch
from datasets import Dataset
from transformers import TrainingArguments

from alignlab.engine.scoring.forward import engine_layers
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import lora_config
from alignlab.training.losses import PreferenceLoss, chosen_nll
from alignlab.training.preference import PreferenceTrainer
from support.against_trl import LORA

BETA = 0.3


def total_loss(base, pairs, references, folder, *, sft_weight, pairs_per_forward=None, sft_from=None):
    chosen, rejected = zip(*pairs, strict=True)
    table = {
        "prompt_ids": [row.prompt_ids for row in chosen],
        "chosen_ids": [row.response_ids for row in chosen],
        "rejected_ids": [row.response_ids for row in rejected],
        "ref_chosen_logps": references[: len(pairs)],
        "ref_rejected_logps": references[len(pairs) :],
    }
    engine = PreferenceTrainer(
        model=base.model,
        args=TrainingArguments(output_dir=str(folder), use_cpu=True, report_to="none"),
        rows=Dataset.from_dict(table | ({} if sft_from is None else {"sft_from": sft_from})),
        loss=PreferenceLoss("sigmoid", BETA, sft_weight=sft_weight),
        lora=lora_config(LORA, base.model),
        pairs_per_forward=pairs_per_forward,
    )
    forwards = engine.data_collator(list(engine.train_dataset))["forwards"]
    with engine_layers(engine.model, engine.batch_layout), torch.no_grad():
        losses = [float(engine.compute_loss(engine.model, one)) for one in forwards]
    engine.model.unload()
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


def test_only_tokens_from_sft_from_count(base, pairs, tmp_path):
    """The first pair counts from its third token on, the second nothing, the third all; a start past the end, none."""
    references = [-10.0] * 6
    plain, _ = total_loss(base, pairs, references, tmp_path, sft_weight=0.0)
    tokens = token_logps(base, [chosen for chosen, _ in pairs])
    expected = (-sum(tokens[0][2:]) / len(tokens[0][2:]) - sum(tokens[2]) / len(tokens[2])) / 3
    for limit in (None, 1):
        options = {"sft_weight": 2.0, "sft_from": [2, -1, 0], "pairs_per_forward": limit}
        got, _ = total_loss(base, pairs, references, tmp_path, **options)
        assert got - plain == pytest.approx(2 * expected, rel=2e-5)
    whole, _ = total_loss(base, pairs, references, tmp_path, sft_weight=2.0)
    assert abs(whole - got) > 0.01  # control: without the column all tokens count
    for nothing in ([-1, -1, -1], [999, 999, 999]):
        got, _ = total_loss(base, pairs, references, tmp_path, sft_weight=2.0, sft_from=nothing)
        assert got == pytest.approx(plain, rel=1e-6)


def token_logps(base, rows):
    """Each response's tokens' log-probabilities, by the model alone."""
    found = []
    for row in rows:
        logits = base.model(torch.tensor([row.prompt_ids + row.response_ids])).logits[0].log_softmax(-1)
        start = len(row.prompt_ids)
        found.append([float(logits[start - 1 + n, token]) for n, token in enumerate(row.response_ids)])
    return found


def test_a_mean_over_all_tokens_would_depend_on_it():
    """Control: why the term is a mean of each response's mean, and not TRL's mean over the tokens of a forward."""
    log_probs = -torch.tensor([[1.0, 0, 0, 0], [3.0, 3, 3, 3]])
    starts, counts = torch.tensor([0, 0]), torch.tensor([1, 4])
    assert chosen_nll(log_probs, starts, counts).tolist() == [1, 3]
    assert float(-log_probs.sum() / counts.sum()) == pytest.approx(13 / 5)
