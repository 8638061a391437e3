"""Summed LoRA layers give PEFT's outputs and gradients, serve only where they are less work, and leave no trace."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from alignlab.engine.scoring import cpu
from alignlab.engine.scoring.cpu import SummedLinear, summed_adapters

TOKENS, INPUTS, OUTPUTS, RANK = 40, 16, 24, 8


class Layers(nn.Module):
    """Two layers, so that a gradient passes through one of them."""

    def __init__(self, bias):
        super().__init__()
        self.first, self.second = nn.Linear(INPUTS, OUTPUTS, bias=bias), nn.Linear(OUTPUTS, INPUTS, bias=bias)

    def forward(self, x):
        return self.second(torch.tanh(self.first(x)))


def adapted(*, bias=False, dtype=torch.float32, **named):
    """A model with adapters that do something."""
    torch.manual_seed(0)
    settings = {"r": RANK, "lora_alpha": 12, "target_modules": ["first", "second"], "lora_dropout": 0.0} | named
    model = get_peft_model(Layers(bias).to(dtype), LoraConfig(**settings)).to(dtype)
    for name, weights in model.named_parameters():
        if "lora_" in name:
            nn.init.normal_(weights, std=0.3)
    return model


@pytest.fixture
def counted(monkeypatch):
    """How often SummedLinear was asked."""
    calls, apply = [], SummedLinear.apply
    monkeypatch.setattr(SummedLinear, "apply", lambda *given: calls.append(1) or apply(*given))
    return calls


def inputs(dtype=torch.float32):
    return torch.randn(2, TOKENS // 2, INPUTS, generator=torch.Generator().manual_seed(1)).to(dtype)


def outcome(model, x):
    """Output and every gradient."""
    x = x.clone().requires_grad_()
    model(x).square().sum().backward()
    gradients = {name: weights.grad for name, weights in model.named_parameters() if weights.grad is not None}
    return model(x).detach(), {"x": x.grad, **gradients}


@pytest.mark.parametrize("bias", [False, True])
@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float64, 1e-12), (torch.float32, 1e-4)])
def test_outputs_and_gradients_are_pefts(bias, dtype, tolerance, counted):
    model = adapted(bias=bias, dtype=dtype)
    expected, expected_gradients = outcome(copy.deepcopy(model), inputs(dtype))
    assert not counted
    with summed_adapters(model):
        got, gradients = outcome(model, inputs(dtype))
    assert len(counted) == 4
    assert gradients.keys() == expected_gradients.keys()
    assert len(gradients) == 5
    torch.testing.assert_close(got, expected, rtol=tolerance, atol=tolerance)
    torch.testing.assert_close(gradients, expected_gradients, rtol=tolerance, atol=tolerance)


def test_the_comparison_sees_another_scale(monkeypatch):
    model = adapted(dtype=torch.float64)
    expected, _ = outcome(copy.deepcopy(model), inputs(torch.float64))
    model.base_model.model.first.scaling["default"] *= 1.01
    with summed_adapters(model):
        got, _ = outcome(model, inputs(torch.float64))
    assert float((got - expected).abs().max()) > 1e-3


def test_gradients_are_those_of_finite_differences():
    generator = torch.Generator().manual_seed(0)
    x, weight, bias, a, b = (
        torch.randn(*shape, generator=generator, dtype=torch.float64)
        for shape in ((3, 4), (5, 4), (5,), (2, 4), (5, 2))
    )
    trained = [part.requires_grad_() for part in (x, a, b)]
    torch.autograd.gradcheck(lambda x, a, b: SummedLinear.apply(x, weight, bias, a, b, 0.7), trained)


def test_an_untrained_adapter_changes_no_bit():
    model = adapted()
    for layer in (model.base_model.model.first, model.base_model.model.second):
        nn.init.zeros_(layer.lora_B["default"].weight)
    with summed_adapters(model), torch.no_grad():
        got = model(inputs())
        with model.disable_adapter():
            assert torch.equal(got, model(inputs()))


def two_adapters(model):
    model.add_adapter("other", LoraConfig(r=RANK, target_modules=["first", "second"]))
    model.base_model.set_adapter(["default", "other"])


@pytest.mark.parametrize(
    ("settings", "change"),
    [
        ({"use_dora": True}, None),
        ({"lora_dropout": 0.5}, None),
        ({"lora_bias": True}, None),
        ({}, two_adapters),
        ({}, lambda model: model.merge_adapter()),
        ({}, lambda model: model.base_model.disable_adapter_layers()),
        ({}, lambda model: model.base_model.model.first.base_layer.weight.requires_grad_()),
        ({"r": 1}, None),
    ],
    ids=["dora", "dropout", "lora_bias", "two", "merged", "disabled", "trained_base", "thin"],
)
def test_what_is_no_plain_sum_or_no_less_work_is_left_to_peft(settings, change, counted):
    model = adapted(**settings).train()
    if change:
        change(model)
    layer = model.base_model.model.first
    with summed_adapters(model):
        torch.manual_seed(3)
        got = layer(inputs())
    torch.manual_seed(3)
    assert torch.equal(got, layer(inputs()))
    assert not counted


def test_autocast_is_left_to_peft(counted):
    model = adapted()
    with summed_adapters(model), torch.autocast("cpu", dtype=torch.bfloat16):
        model(inputs())
    assert not counted


def test_dropout_is_no_hindrance_where_it_is_off(counted):
    model = adapted(lora_dropout=0.5).eval()
    with summed_adapters(model):
        got = model(inputs())
    assert len(counted) == 2
    torch.testing.assert_close(got, model(inputs()), rtol=1e-4, atol=1e-5)


def test_pefts_forward_is_back_afterwards(counted):
    model = adapted()
    with pytest.raises(KeyError), summed_adapters(model), summed_adapters(model):
        raise KeyError
    model(inputs())
    assert not counted
    assert all("forward" not in module.__dict__ for module in model.modules())


@pytest.mark.parametrize("rank", [1, 8, 32, 40, 48, 64, 256])
@pytest.mark.parametrize("with_gradient", [False, True])
def test_the_choice_is_the_one_with_fewer_multiplications(rank, with_gradient, monkeypatch):
    """Both ways are taken and counted, a thousand tokens through a layer of 256 by 256."""
    base = nn.Sequential(nn.Linear(256, 256, bias=False))
    model = get_peft_model(base, LoraConfig(r=rank, target_modules=["0"]))
    x = torch.randn(1000, 256, requires_grad=with_gradient)

    def multiplications():
        with FlopCounterMode(display=False) as counter, torch.set_grad_enabled(with_gradient):
            out = model(x)
            if with_gradient:
                out.sum().backward()
        return counter.get_total_flops()

    apart = multiplications()
    pays = cpu._pays(1000, 256, 256, rank, with_gradient)
    monkeypatch.setattr(cpu, "_pays", lambda *_: True)
    with summed_adapters(model):
        summed = multiplications()
    assert summed != apart
    assert pays is (summed < apart)
