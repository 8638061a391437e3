"""The frozen head gives the obvious computation's log-probabilities and gradients, and leaves the rest to TRL's."""

import pytest
import torch
from trl.trainer import utils as trl_utils

from alignlab.engine.scoring import cpu
from alignlab.engine.scoring.cpu import FrozenHead, frozen_head

N, H, V = 23, 16, 301


@pytest.fixture
def parts():
    generator = torch.Generator().manual_seed(0)
    hidden, weight, bias = (torch.randn(*shape, generator=generator) for shape in ((N, H), (V, H), (V,)))
    return hidden, weight, bias, torch.randint(0, V, (N,), generator=generator), torch.randn(N, generator=generator)


def plain(hidden, weight, bias, targets):
    logits = hidden @ weight.t() + (0 if bias is None else bias)
    return logits.log_softmax(-1)[torch.arange(N), targets]


@pytest.mark.parametrize("with_bias", [False, True])
@pytest.mark.parametrize("chunk", [1, V * 4, 1 << 21])
@pytest.mark.parametrize("fully", [False, True])
def test_values_and_gradients_are_the_plain_ones(parts, with_bias, chunk, fully, monkeypatch):
    monkeypatch.setattr(cpu, "CHUNK", chunk)
    hidden, weight, bias, targets, slopes = parts
    bias = bias if with_bias else None
    exact = hidden.double().requires_grad_()
    expected = plain(exact, weight.double(), None if bias is None else bias.double(), targets)
    (expected * slopes.double()).sum().backward()
    hidden.requires_grad_()
    got, *_ = FrozenHead.apply(hidden, weight, bias, targets, fully)
    (got * slopes).sum().backward()
    torch.testing.assert_close(got, expected.float(), rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(hidden.grad, exact.grad.float(), rtol=1e-4, atol=1e-5)


def test_a_token_that_is_as_good_as_impossible_keeps_its_logarithm(parts):
    """Where the probability itself is 0 in float32."""
    hidden, weight, _, targets, _ = parts
    got, entropy, *_ = FrozenHead.apply(100 * hidden, weight, None, targets, True)
    assert entropy.isfinite().all()
    assert float(got.min()) < -300
    torch.testing.assert_close(got, plain(100 * hidden.double(), weight.double(), None, targets).float())


def test_what_is_not_scored_gets_no_gradient(parts):
    hidden, weight, _, targets, _ = parts
    hidden.requires_grad_()
    FrozenHead.apply(hidden, weight, None, targets, False)[0][:5].sum().backward()
    assert hidden.grad[:5].abs().min() > 0
    assert not hidden.grad[5:].any()


@pytest.mark.parametrize(
    ("fields", "softcap", "scale", "trained", "serves"),
    [
        (("log_probs",), None, 1.0, False, True),
        (("log_probs", "entropy", "mean_logits", "is_top1"), None, 1.0, False, True),
        (("log_probs", "log_sum_sq_probs"), None, 1.0, False, False),
        (("log_probs",), 30.0, 1.0, False, False),
        (("log_probs",), None, 0.5, False, False),
        (("log_probs",), None, 1.0, True, False),
    ],
)
def test_it_serves_plain_frozen_heads_and_trls_serves_the_rest(
    parts, monkeypatch, fields, softcap, scale, trained, serves
):
    hidden, weight, _, targets, _ = parts
    asked = []
    monkeypatch.setattr(cpu._Head, "usual", type("Usual", (), {"apply": lambda *given: asked.append(given)}))
    with frozen_head():
        apply = trl_utils._ChunkedLogProbFunction.apply
        apply(hidden, weight.requires_grad_(trained), None, targets, 1.0, 512, softcap, scale, fields)
    assert (asked == []) == serves


@pytest.mark.parametrize("with_bias", [False, True])
def test_the_log_is_told_what_trls_head_tells(parts, with_bias):
    hidden, weight, bias, targets, _ = parts
    bias = bias if with_bias else None
    likeliest = (hidden @ weight.t() + (0 if bias is None else bias)).argmax(-1)
    targets[::2] = likeliest[::2]
    fields = ("log_probs", "entropy", "mean_logits", "is_top1")
    rest = (hidden, weight, bias, targets, 1.0, 128, None, 1.0, fields)
    expected, got = cpu._Head.usual.apply(*rest), cpu._Head.apply(*rest)
    for one, other in zip(got, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)
    assert 0 < int(got[-1].sum()) < N


def test_trls_head_is_back_afterwards():
    usual = trl_utils._ChunkedLogProbFunction
    with pytest.raises(ZeroDivisionError), frozen_head():
        assert trl_utils._ChunkedLogProbFunction is not usual
        raise ZeroDivisionError
    assert trl_utils._ChunkedLogProbFunction is usual
