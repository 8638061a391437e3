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


def test_a_sum_beyond_the_type_is_refused(base, tmp_path):
    folder = saved(base, tmp_path / "a", {"target_modules": ATTENTION, "lora_alpha": 1e6}, scale=1.0)
    with pytest.raises(ConfigError, match=r"in float16: the tensor model.layers.0.* infinite.*wider"):
        merge_adapter(copy.deepcopy(base.model), folder, dtype=torch.float16)
    merge_adapter(copy.deepcopy(base.model), folder, dtype=torch.float32)
