"""The trainer's loss of a pair is the formula of DESIGN 3.2, computed plainly in float64, for each loss type."""

import math

import pytest
import torch
from datasets import Dataset
from trl import DPOConfig

from alignlab.config.names import LOSSES, REFUSED_LOSSES, SMOOTHED_LOSSES
from alignlab.config.schema import PeftConfig
from alignlab.engine.scoring.forward import computing
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import lora_config
from alignlab.training.preference import TiltedDPOTrainer
from alignlab.training.tilt import tilted_reference

BETA, WEIGHT, SMOOTHING, TAU = 0.3, 0.4, 0.1, 0.05
REWARDS = [0.7, -1.1, 0.2, 2.0]


def log_sigmoid(x):
    return -math.log1p(math.exp(-x)) if x > -700 else x


def plain_loss(loss_type, x, lengths, scores):
    """One pair's loss. x = (beta/w) * D log-ratio - (1/w) * (1-w) * D r; scores are the two sides of x / (beta/w)."""
    beta = BETA / WEIGHT
    if loss_type == "sigmoid":
        return -log_sigmoid(x)
    if loss_type == "hinge":
        return max(0.0, 1 - x)
    if loss_type == "robust":
        return (-(1 - SMOOTHING) * log_sigmoid(x) + SMOOTHING * log_sigmoid(-x)) / (1 - 2 * SMOOTHING)
    if loss_type == "exo_pair":
        q = 1 / (1 + math.exp(-x))
        return q * (math.log(q) - math.log(1 - SMOOTHING)) + (1 - q) * (math.log(1 - q) - math.log(SMOOTHING))
    if loss_type == "discopop":
        mix = 1 / (1 + math.exp(-x / TAU))
        return -log_sigmoid(x) * (1 - mix) + math.exp(-x) * mix
    averaged = scores[0] / lengths[0] - scores[1] / lengths[1]
    if loss_type == "ipo":
        return (averaged - 1 / (2 * beta)) ** 2
    assert loss_type == "sigmoid_norm"
    return -log_sigmoid(beta * averaged)


@pytest.mark.parametrize("loss_type", LOSSES)
def test_loss_of_a_pair_is_the_formula(loss_type, base, encoded_rows, tmp_path):
    chosen, rejected = encoded_rows[0], encoded_rows[1]
    rejected = type(rejected)(chosen.prompt_ids, rejected.response_ids[:-3])
    rows = [chosen, rejected]
    reference = torch.tensor([-20.0, -17.5])
    rewards = torch.tensor(REWARDS[:2])[:, None]
    tilted = tilted_reference(reference, rewards, weights_M=torch.tensor([1 - WEIGHT]), beta=BETA)
    table = Dataset.from_dict(
        {
            "prompt_ids": [chosen.prompt_ids],
            "chosen_ids": [chosen.response_ids],
            "rejected_ids": [rejected.response_ids],
            "ref_chosen_logps": [float(tilted[0])],
            "ref_rejected_logps": [float(tilted[1])],
        }
    )
    engine = TiltedDPOTrainer(
        model=base.model,
        args=DPOConfig(
            output_dir=str(tmp_path),
            beta=BETA / WEIGHT,
            loss_type=[loss_type],
            label_smoothing=SMOOTHING,
            max_length=None,
            precompute_ref_log_probs=True,
            use_cpu=True,
            report_to="none",
        ),
        train_dataset=table,
        processing_class=base.tokenizer,
        peft_config=lora_config(PeftConfig(r=4, alpha=4.0, dropout=0.0, target_modules="all-linear")),
    )
    (batch,) = engine.data_collator(list(table))["forwards"]
    with computing(engine.model, engine.packing):
        got = float(engine._compute_loss(engine.model, batch, return_outputs=False))
    engine.model.unload()
    base.model.__dict__.pop("forward", None)
    logps = response_logps(base.model, rows, batch_size=2, label="").double()
    ratios = (logps - reference.double()).tolist()
    x = BETA / WEIGHT * (ratios[0] - ratios[1]) - (1 - WEIGHT) / WEIGHT * (REWARDS[0] - REWARDS[1])
    scores = [ratio - (1 - WEIGHT) / BETA * reward for ratio, reward in zip(ratios, REWARDS, strict=False)]
    lengths = [len(row.response_ids) for row in rows]
    assert got == pytest.approx(plain_loss(loss_type, x, lengths, scores), rel=2e-5, abs=1e-6)


def test_every_loss_of_trl_is_selectable_or_refused():
    documented = DPOConfig.__dataclass_fields__["loss_type"].metadata["help"]
    for name in (*LOSSES, *REFUSED_LOSSES):
        assert f"'{name}'" in documented or f"`{name}`" in documented or name in documented
    assert not set(LOSSES) & set(REFUSED_LOSSES)
    assert set(SMOOTHED_LOSSES) < set(LOSSES)
