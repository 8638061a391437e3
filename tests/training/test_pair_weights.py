"""Weighted pairs of two objectives in one training: the weighted sum of the two trainings' losses and gradients."""

import pytest
import torch
from datasets import concatenate_datasets

import alignlab.training.preference as preference
from alignlab.engine.scoring.forward import BatchLayout
from alignlab.jobs.dpo_lw import pair_weights
from support.against_trl import model_of, table_of, trained
from support.pairs_of_tokens import ranked_pairs

SETS = [0] * 10 + [1] * 10  # ranked_pairs() are all pairs of two sets of five


def tables():
    """One objective's pairs, and the other's: fewer, and turned round."""
    better = table_of(ranked_pairs(), sets=SETS)
    turned = [(rejected, chosen) for chosen, rejected in ranked_pairs()]
    return better, table_of(turned, sets=SETS).select(range(4, 20))


def first_step(table, folder):
    settings = {"per_device_train_batch_size": len(table), "max_steps": 1}
    found = trained("alignlab", model_of("llama"), table, folder, settings=settings)
    return found.logs[0]["loss"], torch.cat([gradient.flatten() for gradient in found.gradients[0].values()])


def weighted(weights):
    counts = {"better": 20, "safer": 16}
    return concatenate_datasets(list(tables())).add_column("pair_weight", pair_weights(counts, weights))


@pytest.fixture(scope="module")
def alone(tmp_path_factory):
    return [first_step(table, tmp_path_factory.mktemp("alone")) for table in tables()]


@pytest.mark.parametrize("layout", ["packed", "padded"])
def test_half_and_half_is_the_mean_of_two_trainings(alone, layout, tmp_path, monkeypatch):
    if layout == "padded":
        monkeypatch.setattr(preference, "detect_batch_layout", lambda *_, **__: BatchLayout.PADDED)
    (first, first_gradient), (second, second_gradient) = alone
    loss, gradient = first_step(weighted({"better": 0.5, "safer": 0.5}), tmp_path)
    assert loss == pytest.approx((first + second) / 2, rel=1e-5)
    wanted = (first_gradient + second_gradient) / 2
    assert (gradient - wanted).norm() <= 1e-5 * wanted.norm()
    assert abs(first - second) > 1e-2, "control: the objectives' losses differ"
    assert (gradient - (20 * first_gradient + 16 * second_gradient) / 36).norm() > 1e-3 * wanted.norm(), "control"


def test_other_weights_weigh(alone, tmp_path):
    (first, _), (second, _) = alone
    assert first_step(weighted({"better": 0.9, "safer": 0.1}), tmp_path)[0] == pytest.approx(0.9 * first + 0.1 * second)
