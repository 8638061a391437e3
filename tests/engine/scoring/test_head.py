"""The frozen head gives the obvious computation's log-probabilities and gradients, and leaves the rest to TRL's."""

import pytest
import torch
import transformers
from trl.trainer import utils as trl_utils

from alignlab.engine.scoring import cpu
from alignlab.engine.scoring.cpu import FrozenHead
from alignlab.engine.scoring.forward import (
    LOGGED_FIELDS,
    BatchLayout,
    engine_layers,
    fused_head,
    make_batch,
    score_batch,
)
from support.against_trl import SHAPE, model_of
from support.pairs_of_tokens import ranked_pairs

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


def scored(model, fields=LOGGED_FIELDS):
    """TRL's output for a batch of pairs, and its forward's hidden states."""
    seen = []
    batch = make_batch([row for pair in ranked_pairs() for row in pair], BatchLayout.PREFIX_TREE)
    with fused_head(model, fields), engine_layers(model, BatchLayout.PREFIX_TREE):
        handle = model.base_model.register_forward_hook(lambda _, __, out: seen.append(out.last_hidden_state))
        output = score_batch(model, batch)
        handle.remove()
    return output, seen[0].reshape(-1, seen[0].shape[-1])[batch.sources_N], batch


@pytest.fixture
def served(monkeypatch):
    """How often FrozenHead computes."""
    asked = []
    real = FrozenHead.apply
    monkeypatch.setattr(FrozenHead, "apply", staticmethod(lambda *given: asked.append(given) or real(*given)))
    return asked


@pytest.mark.parametrize("fields", [("log_probs",), LOGGED_FIELDS])
@pytest.mark.parametrize("family", ["llama", "llama-tied", "phi"])
def test_a_forward_has_its_figures_to_the_last_digit(family, fields, served):
    model = model_of(family)
    output, hidden, batch = scored(model, fields)
    assert len(served) == 1
    head = model.get_output_embeddings()
    logps, entropy, *_ = FrozenHead.apply(hidden, head.weight, head.bias, batch.targets_N, len(fields) > 1)
    scattered = torch.cat([logps, logps.new_zeros(1)])[batch.scored_idx_BT]
    assert torch.equal(output.log_probs, scattered)
    assert (output.entropy is None) == (entropy is None)


@pytest.mark.parametrize("family", ["llama", "phi"])
def test_the_log_is_told_what_trls_head_tells(family, served, monkeypatch):
    got, *_ = scored(model_of(family))
    monkeypatch.setattr(cpu, "ENABLED", False)
    expected, *_ = scored(model_of(family))
    assert len(served) == 1
    for name in LOGGED_FIELDS:
        torch.testing.assert_close(getattr(got, name), getattr(expected, name), rtol=1e-5, atol=1e-5)


def small(kind, **own):
    """A model whose logits are so small that no cap shows in them."""
    torch.manual_seed(0)
    config = getattr(transformers, f"{kind}Config")(**SHAPE | {"initializer_range": 1e-3} | own)
    return getattr(transformers, f"{kind}ForCausalLM")(config).eval().requires_grad_(False)


@pytest.mark.parametrize(
    ("kind", "own"),
    [
        ("Gemma2", {"head_dim": 8, "query_pre_attn_scalar": 8, "sliding_window": 64, "attn_implementation": "eager"}),
        ("Granite", {"logits_scaling": 2.0}),
        ("Cohere", {"logit_scale": 0.5}),
    ],
)
def test_a_capped_or_scaled_head_is_trls(kind, own, served):
    scored(small(kind, **own))
    assert served == []


def test_a_trained_head_is_trls(served):
    model = model_of("llama")
    model.lm_head.weight.requires_grad_(True)
    scored(model)
    assert served == []


def test_a_model_is_itself_afterwards(served):
    model = model_of("llama")
    with pytest.raises(ZeroDivisionError), fused_head(model):
        assert "forward" in model.__dict__
        raise ZeroDivisionError
    assert "forward" not in model.__dict__


def test_other_libraries_keep_their_functions():
    usual = trl_utils._ChunkedLogProbFunction
    with fused_head(model_of("llama")):
        assert trl_utils._ChunkedLogProbFunction is usual


def test_a_models_own_logits_are_there_within_it(served):
    """For a model whose head carries an adapter or is changed in its own way."""
    model = model_of("llama")
    ids = torch.tensor([[3, 4, 5]])
    with fused_head(model):
        assert torch.equal(model(ids).logits, model.lm_head(model.model(ids).last_hidden_state))
    assert served == []
