"""Merging: the merged model is the adapted one, and what a cast loses is counted right."""

import copy
import dataclasses

import pytest
import torch
from transformers import AutoModelForCausalLM

from alignlab.engine.scoring.logps import response_logps
from alignlab.errors import ConfigError
from alignlab.models.merge import merge_adapter
from alignlab.models.with_adapter import with_adapter
from support.saved_adapters import ATTENTION, MAKES, saved


def logits(model, rows):
    with torch.no_grad():
        return torch.cat([model(torch.tensor([row.prompt_ids + row.response_ids])).logits[0] for row in rows])


@pytest.mark.parametrize("make", MAKES)
def test_the_merged_model_is_the_adapted_one(base, encoded_rows, tmp_path, make):
    folder, rows = saved(base, tmp_path / "a", MAKES[make]), encoded_rows[:4]
    merged, report = merge_adapter(copy.deepcopy(base.model), folder, dtype=torch.float32)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    with with_adapter(base.model, folder) as model:
        wanted = logits(model, rows)
        scored = response_logps(model, rows, batch_size=4, label="")
    torch.testing.assert_close(logits(again, rows), wanted, rtol=1e-5, atol=2e-5)
    torch.testing.assert_close(response_logps(again, rows, batch_size=4, label=""), scored, rtol=0, atol=1e-4)
    assert (logits(base.model, rows) - wanted).abs().max() > 1e-2
    assert report.share_lost == 0
    assert report.share_unmoved == 0


def test_tied_embeddings_part_when_the_adapter_changes_one_of_them(base, encoded_rows, tmp_path):
    tied = copy.deepcopy(base.model)
    tied.config.tie_word_embeddings = True
    tied.tie_weights()
    assert tied.lm_head.weight is tied.model.embed_tokens.weight
    tied_base = dataclasses.replace(base, model=tied)
    folder = saved(tied_base, tmp_path / "a", MAKES["the embeddings"])
    with with_adapter(tied, folder) as model:
        wanted = logits(model, encoded_rows[:4])
    assert tied.lm_head.weight is tied.model.embed_tokens.weight, "the base model is itself again"
    merged, _ = merge_adapter(copy.deepcopy(tied), folder, dtype=torch.float32)
    merged.save_pretrained(tmp_path / "merged")
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()
    torch.testing.assert_close(logits(again, encoded_rows[:4]), wanted, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_what_a_cast_loses(base, tmp_path, dtype):
    """Against the merged weights worked out by hand: W + B A alpha / r."""
    folder = saved(base, tmp_path / "a", {"target_modules": ATTENTION, "lora_alpha": 0.4}, scale=0.01)
    with with_adapter(base.model, folder) as model:
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        factors = layer.lora_B["default"].weight @ layer.lora_A["default"].weight
        assert layer.scaling["default"] == pytest.approx(0.1)
    before = base.model.model.layers[0].self_attn.q_proj.weight
    exact = before + 0.1 * factors
    merged, report = merge_adapter(copy.deepcopy(base.model), folder, dtype=dtype)
    got = merged.model.layers[0].self_attn.q_proj.weight
    assert got.dtype == merged.lm_head.weight.dtype == dtype
    assert got.equal(exact.to(dtype))
    (loss,) = [layer for layer in report.layers if layer.name.endswith("layers.0.self_attn.q_proj")]
    error = exact - exact.to(dtype).float()
    assert loss.share_lost == pytest.approx(float(error.norm() / (exact - before).norm()), rel=1e-4)
    assert loss.max_lost == pytest.approx(float(error.abs().max()), rel=1e-4)
    assert report.worst.share_lost == max(layer.share_lost for layer in report.layers)
    assert loss.share_lost > 0


def test_a_small_update_to_a_16_bit_model_is_lost_and_counted(base, tmp_path):
    model = copy.deepcopy(base.model).to(torch.bfloat16)
    folder = saved(dataclasses.replace(base, model=model), tmp_path / "a", {"target_modules": ATTENTION}, scale=1e-3)
    weights = model.model.layers[0].self_attn.q_proj.weight.clone()
    merged, report = merge_adapter(copy.deepcopy(model), folder, dtype=torch.bfloat16)
    (loss,) = [layer for layer in report.layers if layer.name.endswith("layers.0.self_attn.q_proj")]
    still = int((merged.model.layers[0].self_attn.q_proj.weight == weights).sum())
    assert loss.unmoved == still
    assert still > 0.5 * weights.numel()
    assert loss.share_lost > 0.5
    _, exact = merge_adapter(model, folder, dtype=torch.float32)
    assert exact.share_lost == 0


def with_biases(base):
    """The base model with biases where it has none."""
    model = copy.deepcopy(base.model)
    for layer in model.model.layers:
        for projection in (layer.self_attn.q_proj, layer.self_attn.v_proj, layer.mlp.up_proj):
            projection.bias = torch.nn.Parameter(torch.full([projection.out_features], 0.25))
    return dataclasses.replace(base, model=model)


BIASES = [f"{name}_proj.bias" for name in ("self_attn.q", "self_attn.v", "mlp.up")]
UP = [f"layers.{layer}.mlp.up_proj.{part}" for layer in (0, 1) for part in ("bias", "weight")]
WHOLE = {
    "trained layers": ({"modules_to_save": ["embed_tokens", "up_proj"]}, ["embed_tokens.weight", *UP]),
    "all biases": ({"bias": "all"}, [f"layers.{layer}.{name}" for layer in (0, 1) for name in BIASES]),
    "their biases": ({"bias": "lora_only"}, [f"layers.{layer}.{name}" for layer in (0, 1) for name in BIASES[:2]]),
}


@pytest.mark.parametrize("make", WHOLE)
def test_what_an_adapter_holds_whole_is_taken_from_its_file_and_counted(base, encoded_rows, tmp_path, make):
    settings, names = WHOLE[make]
    names = sorted(f"model.{name}" for name in names)
    biased = with_biases(base)
    folder = saved(biased, tmp_path / "a", {"target_modules": ATTENTION, **settings})
    with with_adapter(biased.model, folder) as model:
        wanted = logits(model, encoded_rows[:4])
    exact, report = merge_adapter(copy.deepcopy(biased.model), folder, dtype=torch.float32)
    torch.testing.assert_close(logits(exact, encoded_rows[:4]), wanted, rtol=1e-5, atol=2e-5)
    assert sorted(report.replaced) == names
    assert report.share_lost == 0
    rounded = copy.deepcopy(biased.model).to(torch.bfloat16)
    again, _ = merge_adapter(copy.deepcopy(rounded), folder, dtype=torch.float32)
    cast, report = merge_adapter(rounded, folder, dtype=torch.bfloat16)
    found = {layer.name: layer for layer in report.layers}
    for name in names:
        value = exact.get_parameter(name)
        assert again.get_parameter(name).equal(value), "not rounded to the base model's type on its way"
        assert cast.get_parameter(name).equal(value.to(torch.bfloat16))
        error, change = value - cast.get_parameter(name), value - biased.model.get_parameter(name).bfloat16()
        assert found[name].share_lost == pytest.approx(float(error.norm() / change.norm()), rel=1e-4)


def test_an_adapted_bias_is_merged_in_float32_and_counted(base, tmp_path):
    biased = with_biases(base)
    folder = saved(biased, tmp_path / "a", {"target_modules": ATTENTION, "lora_bias": True})
    with with_adapter(biased.model, folder) as model:
        layer = model.base_model.model.model.layers[0].self_attn.q_proj
        exact = 0.25 + layer.scaling["default"] * layer.lora_B["default"].bias.detach()
    rounded = copy.deepcopy(biased.model).to(torch.bfloat16)  # 0.25 is exact in it
    merged, _ = merge_adapter(copy.deepcopy(rounded), folder, dtype=torch.float32)
    assert merged.model.layers[0].self_attn.q_proj.bias.equal(exact)
    _, report = merge_adapter(rounded, folder, dtype=torch.bfloat16)
    (loss,) = [layer for layer in report.layers if layer.name.endswith("layers.0.self_attn.q_proj.bias")]
    assert loss.share_lost == pytest.approx(float((exact - exact.bfloat16()).norm() / (exact - 0.25).norm()), rel=1e-4)


def test_a_sum_beyond_the_type_is_refused(base, tmp_path):
    folder = saved(base, tmp_path / "a", {"target_modules": ATTENTION, "lora_alpha": 1e6}, scale=1.0)
    with pytest.raises(ConfigError, match=r"in float16: the tensor model.layers.0.* infinite.*wider"):
        merge_adapter(copy.deepcopy(base.model), folder, dtype=torch.float16)
    merge_adapter(copy.deepcopy(base.model), folder, dtype=torch.float32)
