"""Training at a drawn w: the draws cover every w, and the loss is MODPO's or REBEL's own at that w."""

import copy
from dataclasses import replace

import numpy as np
import pytest
import torch
from datasets import Dataset
from peft import LoraConfig
from transformers import TrainingArguments

from alignlab.engine.scoring.forward import engine_layers
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.conditioned import set_gates
from alignlab.models.prompts import Encoded
from alignlab.training.conditioned import Condition, ConditionedTrainer
from alignlab.training.losses import PreferenceLoss, modpo, squared

CONDITION = Condition(("better", "safer"), rank=2, shared_rank=1, draws=1, concentration=1.0, seed=0)
BETA = 0.7


def drawn(condition, count, start=0):
    return np.array([condition.weights(index) for index in range(start, start + count)])


@pytest.mark.parametrize("start", [0, 5000])
def test_any_few_draws_cover_every_w(start):
    weights = drawn(CONDITION, 20, start)
    assert (np.histogram(weights[:, 0], bins=8, range=(0, 1))[0] > 0).all()
    independent = np.random.default_rng(0).random((200, 20))
    covered = [(np.histogram(row, bins=8, range=(0, 1))[0] > 0).all() for row in independent]
    assert np.mean(covered) < 0.6, "control: independent draws leave gaps"


@pytest.mark.parametrize(("objectives", "concentration"), [(2, 1.0), (2, 0.3), (3, 1.0), (4, 2.0)])
def test_draws_have_the_moments_of_their_distribution(objectives, concentration):
    condition = replace(CONDITION, objectives=tuple("abcd"[:objectives]), concentration=concentration)
    weights = drawn(condition, 4000)
    assert weights.sum(axis=1) == pytest.approx(1)
    assert weights.mean(axis=0) == pytest.approx(1 / objectives, abs=0.01)
    variance = (objectives - 1) / (objectives**2 * (objectives * concentration + 1))  # of a symmetric Dirichlet
    assert weights.var(axis=0) == pytest.approx(variance, rel=0.05)


def test_draws_depend_on_seed_and_step_alone():
    assert drawn(CONDITION, 3, 7).tolist() == drawn(CONDITION, 10)[7:].tolist()
    assert drawn(CONDITION, 3).tolist() != drawn(replace(CONDITION, seed=1), 3).tolist()


@pytest.fixture
def engine_of(base, encoded_rows, tmp_path):
    def make(loss_type, condition=CONDITION, batch=4, **limits):
        rng = np.random.default_rng(0)
        groups = {}
        for row in encoded_rows:
            groups.setdefault(tuple(row.prompt_ids), row)
        prompts = list(groups.values())[:4]
        responses = [row.response_ids for row in encoded_rows]
        table = Dataset.from_list(
            [
                {
                    "prompt_ids": row.prompt_ids,
                    "chosen_ids": responses[2 * index],
                    "rejected_ids": responses[2 * index + 9],
                    "ref_chosen_logps": float(rng.normal(-20)),
                    "ref_rejected_logps": float(rng.normal(-20)),
                    "chosen_rewards": rng.normal(size=2).tolist(),
                    "rejected_rewards": rng.normal(size=2).tolist(),
                    "labels": [1, -1] if index % 2 else [-1, 1],
                }
                for index, row in enumerate(prompts)
            ]
        )
        arguments = TrainingArguments(
            output_dir=str(tmp_path), use_cpu=True, report_to="none", per_device_train_batch_size=batch
        )
        engine = ConditionedTrainer(
            condition=condition,
            model=copy.deepcopy(base.model),
            args=arguments,
            rows=table,
            loss=PreferenceLoss(loss_type, beta=BETA),
            lora=LoraConfig(r=5, lora_alpha=10, target_modules="all-linear"),
            **limits,
        )
        torch.manual_seed(1)
        with torch.no_grad():
            for name, weights in engine.model.named_parameters():
                if "lora_B" in name:
                    weights.normal_(std=0.1)
        return engine, table

    return make


def plain_loss(engine, table, w, loss_type):
    """Equation by equation, from the log-probabilities of the model gated at w."""
    set_gates(engine.model, CONDITION.gates(w))
    columns = {}
    for side in ("chosen", "rejected"):
        rows = [Encoded(row["prompt_ids"], row[f"{side}_ids"]) for row in table]
        logps = response_logps(engine.model, rows, label="")
        columns[side] = logps - torch.tensor(table[f"ref_{side}_logps"], dtype=torch.float64)
    difference = columns["chosen"] - columns["rejected"]
    gaps = torch.tensor(np.array(table["chosen_rewards"]) - np.array(table["rejected_rewards"]))
    if loss_type == "squared":
        return squared(BETA * difference - gaps @ torch.tensor(w, dtype=torch.float64)).mean()
    trained = int(np.argmax(w))
    sign = torch.tensor(table["labels"], dtype=torch.float64)[:, trained]
    other = (sign * gaps[:, 1 - trained])[:, None]
    weights = torch.tensor([w[1 - trained]], dtype=torch.float64)
    return modpo(sign * difference, other, weight=w[trained], weights_M=weights, beta=BETA).mean()


@pytest.mark.parametrize("loss_type", ["squared", "sigmoid"])
@pytest.mark.parametrize("w", [[0.2, 0.8], [0.7, 0.3]])
def test_the_loss_is_the_methods_own_at_w(engine_of, loss_type, w):
    engine, table = engine_of(loss_type)
    (forward,) = engine.data_collator(list(engine.train_dataset))["forwards"]
    with engine_layers(engine.model, engine.batch_layout):
        got = engine.compute_loss(engine.model, {**forward, "w": w})
    wanted = plain_loss(engine, table, w, loss_type)
    assert float(got) == pytest.approx(float(wanted), rel=1e-5)
    other = plain_loss(engine, table, w[::-1], loss_type)
    assert abs(float(other - wanted)) > 1e-2 * float(wanted), "control: another w has another loss"


def test_draws_of_a_step_have_forwards_of_their_own(engine_of):
    engine, _ = engine_of("squared", replace(CONDITION, draws=2))
    forwards = engine._weighted(engine.data_collator(list(engine.train_dataset))["forwards"])
    assert [len(forward["ids"]) for forward in forwards] == [2, 2]
    assert [forward["w"] for forward in forwards] == [CONDITION.weights(0), CONDITION.weights(1)]
    engine.state.global_step = 3
    assert engine._weighted(forwards)[0]["w"] == CONDITION.weights(6)


def test_every_block_is_trained(engine_of):
    engine, _ = engine_of("squared")
    (forward,) = engine.data_collator(list(engine.train_dataset))["forwards"]
    with engine_layers(engine.model, engine.batch_layout):
        engine.compute_loss(engine.model, {**forward, "w": [1.0, 0.0]}).backward()
    factors = [weights for name, weights in engine.model.named_parameters() if "lora_B" in name]
    assert all(weights.grad[:, :2].abs().max() > 0 and weights.grad[:, 4:].abs().max() > 0 for weights in factors)
    assert all((weights.grad[:, 2:4] == 0).all() for weights in factors), "at w=1 the other objective's block is out"


@pytest.mark.parametrize("limit", [{"tokens_per_forward": 10_000}, {"pairs_per_forward": 64}, {"sets_per_step": 4}])
def test_draws_have_forwards_of_their_own_whatever_limits_a_forward(engine_of, limit):
    engine, _ = engine_of("squared", replace(CONDITION, draws=2), **limit)
    forwards = engine._weighted(engine.data_collator(list(engine.train_dataset))["forwards"])
    assert [len(forward["ids"]) for forward in forwards] == [2, 2]
    assert forwards[0]["w"] != forwards[1]["w"]
    one, _ = engine_of("squared", CONDITION, **limit)
    assert len(one.data_collator(list(one.train_dataset))["forwards"]) == 1, "control: one draw has one"


def test_a_ranked_set_has_one_w(engine_of):
    engine, _ = engine_of("squared", replace(CONDITION, draws=2))
    rows = [{**row, "set": number // 3} for number, row in enumerate(engine.train_dataset)]
    assert [len(forward["ids"]) for forward in engine.data_collator(rows)["forwards"]] == [3, 1]
