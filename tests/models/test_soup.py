"""A soup adds up what adapters add to the weights: held against PEFT's own merge of each adapter."""

import copy
import json

import pytest
import torch
from peft import PeftModel

from alignlab.engine.scoring.logps import response_logps
from alignlab.errors import ConfigError
from alignlab.models.plain_lora import require_plain
from alignlab.models.saved_adapter import adapter_settings
from alignlab.models.soup import change_of, of_rank, save_change, weighted_sum
from alignlab.models.with_adapter import with_adapter
from support.saved_adapters import ATTENTION, MAKES, saved

MLP = ["up_proj", "down_proj"]
KINDS = {
    "rank 4, alpha 8": {"r": 4, "lora_alpha": 8, "target_modules": ATTENTION},
    "rank 16, alpha 32": {"r": 16, "lora_alpha": 32, "target_modules": "all-linear"},
    "rank 16, alpha 8": {"r": 16, "lora_alpha": 8, "target_modules": ATTENTION},
    "rank-stabilised": MAKES["rank-stabilised"],
    "ranks of its own": MAKES["ranks of its own"],
    "one layer": MAKES["one layer"],
    "other layers": {"r": 4, "lora_alpha": 32, "target_modules": MLP},
}


def dense(model, folder):
    """Name -> weight after PEFT's own merge_and_unload, float64."""
    merged = PeftModel.from_pretrained(copy.deepcopy(model), folder).merge_and_unload()
    return {name: value.detach().double() for name, value in merged.named_parameters()}


def mixed(base, folders, weights, target):
    changes = [(weight, change_of(base.model, folder)) for weight, folder in zip(weights, folders, strict=True)]
    change = weighted_sum(changes)
    return change, save_change(base.model, change, target)


@pytest.fixture(scope="module")
def made(base, tmp_path_factory):
    """Kind -> folder of an adapter with weights of its own."""
    folder = tmp_path_factory.mktemp("endpoints")
    return {name: saved(base, folder / str(number), make) for number, (name, make) in enumerate(KINDS.items())}


@pytest.mark.parametrize(
    ("first", "second"),
    [
        ("rank 4, alpha 8", "rank 16, alpha 32"),
        ("rank 16, alpha 8", "rank-stabilised"),
        ("ranks of its own", "one layer"),
        ("other layers", "rank 4, alpha 8"),
    ],
)
@pytest.mark.parametrize("weights", [(0.3, 0.7), (1.3, -0.3)])
def test_it_is_the_sum_of_the_merged_changes(base, made, tmp_path, first, second, weights):
    folders = [made[first], made[second]]
    mixed(base, folders, weights, tmp_path / "soup")
    before = {name: value.detach().double() for name, value in base.model.named_parameters()}
    ends, got = [dense(base.model, folder) for folder in folders], dense(base.model, tmp_path / "soup")
    moved = 0.0
    for name, weight in before.items():
        wanted = weight + sum(w * (end[name] - weight) for w, end in zip(weights, ends, strict=True))
        torch.testing.assert_close(got[name], wanted, rtol=0, atol=1e-6)
        moved = max(moved, float((wanted - weight).abs().max()))
    assert moved > 1e-2, "control: there is something to add up"


def test_the_mean_of_the_factors_is_another_thing(base, made):
    """Control: what users do by hand misses terms, and the comparison above would see it."""
    one, other = (change_of(base.model, made[name]) for name in ("rank 16, alpha 32", "rank 16, alpha 8"))
    name = "model.layers.0.self_attn.q_proj"
    right = weighted_sum([(0.5, one), (0.5, other)])[name]
    wrong = (one[name].up_OR + other[name].up_OR) @ (one[name].down_RI + other[name].down_RI) / 4
    assert float((wrong - right.up_OR @ right.down_RI).norm()) > 0.3 * float(wrong.norm())


def test_three_adapters_add_up_too_and_the_rank_is_the_sum(base, made, tmp_path):
    names = ["rank 4, alpha 8", "rank 16, alpha 32", "rank 16, alpha 8"]
    _, rank = mixed(base, [made[name] for name in names], (0.2, 0.3, 0.5), tmp_path / "soup")
    settings = json.loads((tmp_path / "soup/adapter_config.json").read_text())
    assert (rank, settings["r"], settings["lora_alpha"], settings["rank_pattern"]) == (36, 36, 36, {})


def test_all_of_one_endpoint_is_that_endpoint(base, made, encoded_rows, tmp_path):
    folder = made["rank 16, alpha 32"]
    mixed(base, [folder], (1.0,), tmp_path / "soup")
    found = []
    for adapter in (folder, tmp_path / "soup"):
        with with_adapter(base.model, adapter) as model:
            found.append(response_logps(model, encoded_rows, batch_size=8, label=""))
    torch.testing.assert_close(found[1], found[0], rtol=0, atol=2e-5)
    untouched = response_logps(base.model, encoded_rows, batch_size=8, label="")
    assert (found[0] - untouched).abs().max() > 0.1, "control"


def test_the_base_model_is_itself_again(base, made, tmp_path):
    before = {name: value.clone() for name, value in base.model.state_dict().items()}
    mixed(base, [made["rank 4, alpha 8"]], (0.5,), tmp_path / "soup")
    after = base.model.state_dict()
    assert list(after) == list(before)
    assert all(after[name].equal(value) for name, value in before.items())


@pytest.mark.parametrize("rank", [1, 5, 12])
def test_a_smaller_rank_is_the_nearest_and_its_error_is_as_said(base, made, tmp_path, rank):
    folders = [made["rank 4, alpha 8"], made["rank 16, alpha 8"]]
    change, _ = mixed(base, folders, (0.4, 0.6), tmp_path / "whole")
    smaller, error = of_rank(change, rank)
    assert save_change(base.model, smaller, tmp_path / "cut") == rank
    lost = whole = best = 0.0
    for name, one in change.items():
        full = one.up_OR @ one.down_RI
        lost += float((smaller[name].up_OR @ smaller[name].down_RI - full).square().sum())
        best += float(torch.linalg.svdvals(full)[rank:].square().sum())
        whole += float(full.square().sum())
    assert lost == pytest.approx(best, rel=1e-9), "Eckart-Young: no matrix of this rank is nearer"
    assert error == pytest.approx((lost / whole) ** 0.5, rel=1e-9)
    assert 0.05 < error < 1


def test_a_change_of_nothing_has_no_error(base, made):
    change = weighted_sum([(0.0, change_of(base.model, made["rank 4, alpha 8"]))])
    assert of_rank(change, 2)[1] == 0


REFUSED = {
    "dora": "(use_dora)",
    "a trained head": "holds whole layers (modules_to_save)",
    "trained tokens": "(trainable_token_indices)",
    "from principal components": "init_lora_weights=pissa",
    "the embeddings": "no factor of a linear layer's change",
    "the head": "no factor of a linear layer's change",
    "biases": "trains biases (bias=all)",
    "biases of factors": "(lora_bias)",
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_no_sum_of_loras_expresses_is_refused_by_name(base, tmp_path, name):
    more = {
        "biases": {"target_modules": ATTENTION, "bias": "all"},
        "biases of factors": {"target_modules": ATTENTION, "lora_bias": True},
    }
    folder = saved(base, tmp_path / "a", {**MAKES, **more}[name])
    with pytest.raises(ConfigError) as refused:
        require_plain("algorithm.adapters.safer", folder, adapter_settings("algorithm.adapters.safer", folder))
    assert str(refused.value).startswith(f"algorithm.adapters.safer={folder}: ")
    assert REFUSED[name] in str(refused.value)


@pytest.mark.parametrize("name", KINDS)
def test_plain_ones_pass(made, name):
    assert require_plain("algorithm.adapters.safer", made[name], adapter_settings("adapter", made[name])) is None
