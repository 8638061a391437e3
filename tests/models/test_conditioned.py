"""An adapter that is a function of w: what is exported at w is what the gated model computes, an ordinary LoRA."""

import copy

import pytest
import torch
from peft import LoraConfig, PeftModel, get_peft_model

from alignlab.engine.scoring import cpu
from alignlab.engine.scoring.logps import response_logps
from alignlab.errors import ConfigError
from alignlab.models.conditioned import gates_of, install_gates, set_gates, write_adapter_at
from alignlab.models.merge import merge_adapter
from alignlab.models.with_adapter import with_adapter
from support.saved_adapters import saved

RANKS, SHARED = {"better": 2, "safer": 1}, 1
SETTINGS = {"target_modules": "all-linear"}
WEIGHTS = {"better": 0.37, "safer": 0.63}


@pytest.fixture(scope="module")
def folder(base, tmp_path_factory):
    return saved(base, tmp_path_factory.mktemp("conditioned") / "adapter", SETTINGS, scale=0.1)


def exported(folder, target, weights, ranks=RANKS, shared=SHARED):
    target.mkdir()
    write_adapter_at(folder, target, weights=weights, ranks=ranks, shared_rank=shared)
    return target


def gated(base, folder, weights):
    """The conditioned model at w."""
    model = PeftModel.from_pretrained(copy.deepcopy(base.model), str(folder)).eval()
    install_gates(model)
    set_gates(model, gates_of(list(weights.values()), list(RANKS.values()), SHARED))
    return model


@pytest.mark.parametrize("summed", [True, False], ids=["summed weights", "PEFT's forward"])
def test_the_export_is_the_conditioned_model(base, folder, encoded_rows, tmp_path, monkeypatch, summed):
    monkeypatch.setattr(cpu, "ENABLED", summed)
    scored = response_logps(gated(base, folder, WEIGHTS), encoded_rows, batch_size=8, label="")
    target = exported(folder, tmp_path / "w", WEIGHTS)
    with with_adapter(base.model, target) as model:
        torch.testing.assert_close(response_logps(model, encoded_rows, label=""), scored, rtol=0, atol=1e-5)
    plain = PeftModel.from_pretrained(copy.deepcopy(base.model), str(target)).eval()
    torch.testing.assert_close(response_logps(plain, encoded_rows, label=""), scored, rtol=0, atol=1e-5)
    merged, _ = merge_adapter(copy.deepcopy(base.model), target, dtype=torch.float32)
    torch.testing.assert_close(response_logps(merged, encoded_rows, label=""), scored, rtol=0, atol=1e-4)
    other = exported(folder, tmp_path / "other", {"better": 0.4, "safer": 0.6})
    with with_adapter(base.model, other) as model:
        far = (response_logps(model, encoded_rows, label="") - scored).abs().max()
    assert far > 1e-3, "control: another w is another policy"


def test_it_is_linear_in_w(base, folder, tmp_path):
    """Twice the middle is the sum of both ends, the shared block counted once on either side."""
    ends = [exported(folder, tmp_path / str(w), {"better": w, "safer": 1 - w}) for w in (0, 1, 0.5)]
    name = "layers.0.self_attn.q_proj"

    def change(one):
        with with_adapter(base.model, one) as model:
            layer = model.get_submodule(f"base_model.model.model.{name}")
            return layer.get_delta_weight("default").detach().clone()

    first, second, middle = (change(one) for one in ends)
    torch.testing.assert_close(2 * middle, first + second)
    assert (first - second).norm() > 0.1 * middle.norm()


def test_gradients_are_those_of_peft_whichever_way_it_is_computed(base, folder, monkeypatch, encoded_rows):
    def gradients(enabled):
        monkeypatch.setattr(cpu, "ENABLED", enabled)
        model = gated(base, folder, WEIGHTS)
        for name, parameter in model.named_parameters():
            parameter.requires_grad_("lora_" in name)
        ids = torch.tensor([(encoded_rows[0].prompt_ids + encoded_rows[0].response_ids) * 3])
        with cpu.summed_adapters(model):
            model(ids).logits.square().mean().backward()
        return {name: weights.grad for name, weights in model.named_parameters() if weights.requires_grad}

    ours, peft = gradients(True), gradients(False)
    for name, gradient in peft.items():
        torch.testing.assert_close(ours[name], gradient, rtol=1e-4, atol=1e-6)


def test_a_card_of_another_rank_is_seen(folder, tmp_path):
    with pytest.raises(ConfigError, match="has rank 4, its card says 7"):
        exported(folder, tmp_path / "w", WEIGHTS, ranks={"better": 3, "safer": 3})


def test_layers_that_no_gate_fits_are_refused(base):
    settings = LoraConfig(r=2, target_modules=["embed_tokens", "q_proj"])
    with pytest.raises(ConfigError, match="embed_tokens is no linear layer"):
        install_gates(get_peft_model(copy.deepcopy(base.model), settings))
