"""The ways to compute a batch: which one a model takes, and that they agree."""

import dataclasses

import pytest
import torch
import transformers
from torch.nn.attention.flex_attention import create_block_mask, flex_attention
from transformers.integrations import flex_attention as their_flex

from alignlab.engine.scoring import probe
from alignlab.engine.scoring.attention import PREFIX_TREE_ATTENTION, TreeMasks, block_mask
from alignlab.engine.scoring.forward import BatchLayout, engine_layers, fused_head, make_batch, score_batch
from alignlab.engine.scoring.layout import padded_batch, prefix_tree_batch
from alignlab.engine.scoring.probe import detect_batch_layout
from alignlab.models.prompts import Encoded
from support.against_trl import SHAPE, VOCABULARY, model_of
from support.pairs_of_tokens import DATA, ranked_pairs


def rows_of(pairs):
    return [chosen for chosen, _ in pairs] + [rejected for _, rejected in pairs]


def logps_of(model, layout, packing):
    with fused_head(model), engine_layers(model, packing), torch.no_grad():
        return score_batch(model, layout).log_probs.sum(1)


@pytest.fixture
def rows():
    return rows_of(ranked_pairs())


@pytest.mark.parametrize("data", DATA)
@pytest.mark.parametrize("mask_cost", [0.0, 0.01, 10.0])
def test_however_much_is_shared_the_rows_have_their_log_probabilities(data, mask_cost):
    model, rows = model_of("llama"), rows_of(DATA[data]())
    packed = logps_of(model, prefix_tree_batch(rows, mask_cost=mask_cost), BatchLayout.PREFIX_TREE)
    torch.testing.assert_close(packed, logps_of(model, padded_batch(rows), BatchLayout.PADDED), rtol=1e-5, atol=1e-5)


def test_a_forest_is_a_fraction_of_the_padded_batch(rows):
    assert prefix_tree_batch(rows).num_positions < padded_batch(rows).num_positions / 3


def test_another_mask_is_seen(rows):
    """The control: rows that see a token more, or one less, have other log-probabilities."""
    model = model_of("llama")
    layout = prefix_tree_batch(rows, mask_cost=0)
    right = logps_of(model, layout, BatchLayout.PREFIX_TREE)
    assert any(not call.is_causal for call in layout.calls)
    for shift in (-1, 1):
        calls = tuple(dataclasses.replace(call, query_start_B=call.query_start_B + shift) for call in layout.calls)
        wrong = logps_of(model, dataclasses.replace(layout, calls=calls), BatchLayout.PREFIX_TREE)
        assert (wrong - right).abs().max() > 1e-2


def test_a_model_is_itself_again(rows):
    model = model_of("llama")
    before = model(torch.tensor([[3, 4, 5]])).logits
    with engine_layers(model, BatchLayout.PREFIX_TREE):
        assert model.config._attn_implementation == PREFIX_TREE_ATTENTION
        with pytest.raises(NotImplementedError):  # a model that attends over forests takes nothing else
            model(torch.tensor([[3, 4, 5]]))
    assert model.config._attn_implementation == "sdpa"
    assert model(torch.tensor([[3, 4, 5]])).logits.equal(before)


def mamba():
    config = transformers.MambaConfig(vocab_size=VOCABULARY, hidden_size=16, num_hidden_layers=1, state_size=4)
    return transformers.MambaForCausalLM(config).eval()


def gpt_oss():
    """Attention sinks, which the forest's attention refuses."""
    config = transformers.GptOssConfig(
        **SHAPE, head_dim=8, num_local_experts=2, num_experts_per_tok=1, attn_implementation="eager"
    )
    return transformers.GptOssForCausalLM(config).eval()


@pytest.mark.parametrize(("make", "reason"), [(mamba, "log-probs differ"), (gpt_oss, "cannot share prefixes")])
def test_a_model_that_takes_no_forest_is_padded_and_that_is_said(make, reason, capsys, rows):
    torch.manual_seed(0)
    model = make()
    packing = detect_batch_layout(model, longest=21)
    assert packing is BatchLayout.PADDED
    assert reason in capsys.readouterr().out
    logps_of(model, make_batch(rows, packing), packing)


def test_what_holds_for_short_rows_is_tried_again_for_long_ones(monkeypatch):
    """A model whose window nobody tells the attention: it shows only in rows that are longer."""
    model = model_of("mistral", sliding_window=30)
    assert detect_batch_layout(model, longest=200) is BatchLayout.PREFIX_TREE  # control: it is told
    forgotten = TreeMasks.window
    monkeypatch.setattr(TreeMasks, "window", lambda self, asked: forgotten(self, None))
    model = model_of("mistral", sliding_window=30)
    assert detect_batch_layout(model, longest=60) is BatchLayout.PADDED
    assert detect_batch_layout(model, longest=25) is BatchLayout.PREFIX_TREE
    assert detect_batch_layout(model, longest=60) is BatchLayout.PADDED


@pytest.mark.parametrize(
    ("found", "asked", "tried"),
    [(BatchLayout.PREFIX_TREE, (20, 20, 30, 20, 25), [20, 30]), (BatchLayout.PADDED, (20, 30, 20, 10, 15), [20, 10])],
)
def test_no_length_is_tried_twice_nor_one_below_what_held_or_above_what_failed(found, asked, tried, monkeypatch):
    lengths = []
    monkeypatch.setattr(probe, "_first_that_works", lambda model, *given: lengths.append(given) or found)
    model = model_of("llama")
    for longest in asked:
        assert detect_batch_layout(model, longest=longest) is found
    assert lengths == [(length, False) for length in tried]
    detect_batch_layout(model, longest=15, autocast=True)  # another precision is another way to compute
    assert lengths[len(tried) :] == [(15, True)]


class Capped(transformers.LlamaForCausalLM):
    """Logits are capped under a name that nobody has heard of."""

    def forward(self, *given, **named):
        output = super().forward(*given, **named)
        output.logits = 0.02 * torch.tanh(output.logits / 0.02)
        return output


def test_logits_of_a_model_that_changes_them_are_its_own(capsys, rows):
    torch.manual_seed(0)
    model = Capped(transformers.LlamaConfig(**SHAPE)).eval()
    plain = transformers.LlamaForCausalLM(model.config).eval()
    plain.load_state_dict(model.state_dict())
    packing = detect_batch_layout(model, longest=21)
    assert packing is BatchLayout.PREFIX_TREE
    assert "using the model's own" in capsys.readouterr().out
    row = rows[0]
    text = torch.tensor([row.prompt_ids + row.response_ids])
    logps = model(text).logits[0, :-1].log_softmax(-1).gather(1, text[0, 1:, None])[:, 0]
    expected = logps[len(row.prompt_ids) - 1 :].sum()
    assert logps_of(model, make_batch(rows, packing), packing)[0].item() == pytest.approx(expected.item(), rel=1e-5)
    without = logps_of(plain, make_batch(rows, packing), packing)[0].item()  # control: the cap matters
    assert without != pytest.approx(expected.item(), rel=1e-3)


def test_no_gradient_is_left_by_the_trial():
    model = model_of("llama").requires_grad_(True)
    detect_batch_layout(model, longest=20)
    assert all(weights.grad is None for weights in model.parameters())
    assert not model.training


# What a GPU computes: FlexAttention has no backward pass on a CPU, but its forward, and the block mask, are the same.


def long_rows():
    generator = torch.Generator().manual_seed(0)
    text, other = torch.randint(3, VOCABULARY, (2, 400), generator=generator).tolist()
    cuts = [(40, 90), (120, 60), (121, 200), (300, 30), (300, 31), (390, 5)]
    return [Encoded(text[:9], text[9:cut] + other[:more]) for cut, more in cuts] + [Encoded(other[:7], other[7:150])]


@pytest.mark.parametrize("window", [None, 33])
def test_the_block_mask_is_the_dense_mask(window):
    layout = prefix_tree_batch(long_rows(), block_sparse=True)
    subtree_end_L, position_ids_L = layout.subtree_end_RL[0], layout.position_ids_RL[0]
    mask, length = block_mask(subtree_end_L, position_ids_L, window), len(subtree_end_L)
    expected = create_block_mask(mask.mask_mod, None, None, length, length, device="cpu")
    assert (mask.to_dense() >= expected.to_dense()).all()  # no block is left out
    if window is None:
        assert mask.to_dense().equal(expected.to_dense())
        assert mask.full_kv_num_blocks.equal(expected.full_kv_num_blocks)
        assert 0.3 < mask.sparsity() / 100 < 0.9
        assert int(mask.full_kv_num_blocks.sum()) > 0
    slots = torch.arange(length)
    dense = (slots[None] <= slots[:, None]) & (slots[:, None] < subtree_end_L[None])
    dense &= position_ids_L[:, None] - position_ids_L[None] < (window or length)
    query, key, value = torch.randn(3, 1, 2, length, 16, generator=torch.Generator().manual_seed(0)).unbind(0)
    flex = flex_attention(query, key, value, block_mask=mask)
    plain = torch.nn.functional.scaled_dot_product_attention(query, key, value, attn_mask=dense)
    torch.testing.assert_close(flex, plain, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("family", ["llama", "gemma2-short-window", "mistral-short-window"])
def test_a_forest_in_blocks_has_the_padded_log_probabilities(family, monkeypatch):
    """Through transformers' own FlexAttention, but not compiled."""

    def uncompiled(query, key, value, training=False, **named):
        return flex_attention(query, key, value, **named)

    monkeypatch.setattr(their_flex, "compile_friendly_flex_attention", uncompiled)
    model, rows = model_of(family, max_position_embeddings=512), long_rows()
    layout = make_batch(rows, BatchLayout.PREFIX_TREE_BLOCKS)
    assert layout.num_positions % 128 == 0
    packed = logps_of(model, layout, BatchLayout.PREFIX_TREE_BLOCKS)
    torch.testing.assert_close(packed, logps_of(model, padded_batch(rows), BatchLayout.PADDED), rtol=1e-5, atol=1e-4)
