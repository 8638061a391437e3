"""Decoding many samples of shared prefixes gives what each would give alone."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model

from alignlab.engine.sampling import generate as way_in
from alignlab.engine.sampling import shared
from alignlab.engine.sampling.draw import Sampling
from alignlab.engine.sampling.generate import decode
from alignlab.engine.sampling.local import Decoder, DecodeSettings
from alignlab.engine.sampling.plain import PlainDecoder
from alignlab.engine.sampling.prefixes import Branch, branches_of, shared_prefixes_of, split
from alignlab.engine.sampling.probe import _same_logits, shares_prefixes
from support.small import APART, SHARING, STOP, model_of, nested_branches, texts

GREEDY = Sampling(0.0, 1.0)
USUAL = Sampling(0.8, 0.7)


def settings(sampling=USUAL, *, seed=0, stops=(STOP,), longest=10):
    return DecodeSettings(sampling, longest, seed, frozenset(stops))


def decoded(model, branches, how, *, batch_size=64, kind=None):
    """Branch name -> tokens."""
    found = {}

    def finished(branch, tokens):
        assert branch.name not in found
        found[branch.name] = list(tokens)

    if kind is None:
        decode(model, branches, settings=how, batch_size=batch_size, finished=finished)
    else:
        kind(model, how, batch_size=batch_size, finished=finished).run(shared_prefixes_of(branches))
    assert found.keys() == {branch.name for branch in branches}
    return found


def by_generate(model, branch, longest=10):
    """The branch alone, by transformers."""
    ids = torch.tensor([branch.prefix_ids])
    options = {"max_new_tokens": longest, "do_sample": False, "eos_token_id": STOP, "pad_token_id": 0}
    return model.generate(ids, attention_mask=torch.ones_like(ids), **options)[0, branch.depth :].tolist()


@pytest.mark.parametrize("name", [*SHARING, *APART])
def test_greedy_is_what_generate_gives(name):
    model, branches = model_of(name), nested_branches(samples=1)
    assert shares_prefixes(model) is (name in SHARING)
    before = model.config._attn_implementation
    assert decoded(model, branches, settings(GREEDY)) == {
        branch.name: by_generate(model, branch) for branch in branches
    }
    assert model.config._attn_implementation == before


@pytest.mark.parametrize("sampling", [USUAL, Sampling(1.0, 1.0)], ids=["nucleus", "plain"])
def test_draws_depend_on_seed_and_name_alone(sampling):
    model, branches = model_of("Llama"), nested_branches(samples=3)
    together = decoded(model, branches, settings(sampling))
    assert decoded(model, branches, settings(sampling), batch_size=1) == together
    assert decoded(model, branches[::-1], settings(sampling), batch_size=7) == together
    assert decoded(model, branches[5:9], settings(sampling)) == {
        branch.name: together[branch.name] for branch in branches[5:9]
    }
    assert decoded(model, branches, settings(sampling), kind=PlainDecoder) == together
    assert decoded(model, branches, settings(sampling, seed=1)) != together
    one_prefix = {tuple(together[branch.name]) for branch in branches if branch.name.startswith("0/40/")}
    assert len(one_prefix) > 1, "samples of one prefix differ"


@pytest.mark.parametrize("kind", [Decoder, PlainDecoder])
@pytest.mark.parametrize("sampling", [GREEDY, USUAL], ids=["greedy", "nucleus"])
def test_a_model_whose_logits_are_no_numbers_writes_nothing(kind, sampling):
    """Finite weights can overflow too; the sample is named."""
    model, branches = copy.deepcopy(model_of("Llama")), nested_branches(samples=1)
    with torch.no_grad():
        model.model.layers[0].mlp.down_proj.weight.fill_(3e38)
    assert all(weights.isfinite().all() for weights in model.parameters())
    with pytest.raises(FloatingPointError, match=r"sample \S+: the model's logits are NaN"):
        decoded(model, branches, settings(sampling), kind=kind)


def test_the_fallback_takes_nothing_from_the_models_defaults():
    """A repetition penalty in generation_config.json would change every draw."""
    model, branches = model_of("Llama"), nested_branches()
    expected = decoded(model, branches, settings())
    try:
        model.generation_config.repetition_penalty = 1.7
        assert decoded(model, branches, settings(), kind=PlainDecoder) == expected
    finally:
        model.generation_config.repetition_penalty = None


def test_every_stop_token_ends_a_sample():
    model, branches = model_of("Llama"), nested_branches(samples=6)
    free = decoded(model, branches, settings(stops=()))
    stops = {free[branches[0].name][2], free[branches[7].name][4]}

    def cut(tokens):
        ends = [index for index, token in enumerate(tokens) if token in stops]
        return tokens[: ends[0] + 1] if ends else tokens

    for kind in (Decoder, PlainDecoder):
        found = decoded(model, branches, settings(stops=stops), kind=kind)
        assert found == {name: cut(tokens) for name, tokens in free.items()}
    assert len({len(tokens) for tokens in found.values()}) > 2


def test_a_prefix_is_read_once():
    model, branches = model_of("Llama"), nested_branches(samples=20)
    decoder = Decoder(model, settings(), batch_size=1000, finished=lambda branch, tokens: None)
    decoder.run(shared_prefixes_of(branches))
    each = sum(branch.depth for branch in branches)
    assert decoder.counts.prefill_tokens <= 3 * len(texts()[0])
    assert each / decoder.counts.prefill_tokens > 25


def test_an_adapter_is_evaluated_on_the_loaded_base():
    branches = nested_branches()
    base = model_of("Llama")
    plain = decoded(base, branches, settings())
    wrapped = get_peft_model(base, LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")).eval()
    try:
        assert decoded(wrapped, branches, settings()) == plain, "a fresh adapter changes nothing"
        for name, weight in wrapped.named_parameters():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, std=0.3)
        adapted = decoded(wrapped, branches, settings())
        assert adapted != plain
        assert decoded(wrapped, branches, settings(), kind=PlainDecoder) == adapted
    finally:
        wrapped.unload()
    assert decoded(base, branches, settings()) == plain


def test_the_probe_sees_wrong_attention(monkeypatch):
    """Branches that miss the last token of their prefix are told from the model's own."""
    model = model_of("Llama")
    assert _same_logits(model)
    right = shared.BranchIndex.hidden

    def wrong(self, width, window):
        last = torch.arange(width + self.width) == (self.depth_L - 1)[:, None]
        return right(self, width, window) | last[:, None, None]

    monkeypatch.setattr(shared.BranchIndex, "hidden", wrong)
    assert not _same_logits(model)


def test_a_kind_of_layer_that_a_short_text_cannot_tell_is_refused():
    model = model_of("GPT2")
    before = getattr(model.config, "layer_types", None)
    try:
        model.config.layer_types = ["full_attention", "chunked_attention"]
        way_in.shares_prefixes.__globals__["_tried"].pop(model, None)
        assert not shares_prefixes(model)
    finally:
        model.config.layer_types = before
        way_in.shares_prefixes.__globals__["_tried"].pop(model, None)


def test_out_of_memory_halves_the_batch_and_draws_the_same(monkeypatch, capsys):
    model, branches = model_of("Llama"), nested_branches(samples=4)
    expected = decoded(model, branches, settings())
    step, most = Decoder._step, []

    def scarce(self):
        most.append(len(self._samples))
        if len(self._samples) > 5:
            raise torch.OutOfMemoryError("no more")
        step(self)

    monkeypatch.setattr(Decoder, "_step", scarce)
    assert decoded(model, branches, settings(), batch_size=20) == expected
    assert "goes on with 5 samples" in capsys.readouterr().out
    assert max(most[-5:]) <= 5
    monkeypatch.setattr(Decoder, "_step", lambda self: (_ for _ in ()).throw(torch.OutOfMemoryError("none at all")))
    with pytest.raises(torch.OutOfMemoryError):
        decoded(model, branches, settings(), batch_size=4)


def test_as_many_at_once_as_memory_holds(monkeypatch):
    """And the tokens stay the same; the control is that more run together where there is more memory."""
    model, branches = model_of("Llama"), nested_branches(samples=3)
    step, most = Decoder._step, []

    def watched(self):
        most.append(len(self._samples))
        step(self)

    monkeypatch.setattr(Decoder, "_step", watched)
    expected = decoded(model, branches, settings())
    assert max(most) > 4
    most.clear()
    each = 4 * 2 * model.config.num_key_value_heads * (model.config.hidden_size // model.config.num_attention_heads)
    monkeypatch.setattr("alignlab.engine.memory.CPU_BYTES", 5 * (each * 4 * 10 + 24 * model.config.vocab_size))
    assert decoded(model, branches, settings()) == expected
    assert max(most) <= 4


def test_trunks_hold_every_cut_of_a_text():
    branches = nested_branches()
    found = shared_prefixes_of(branches)
    assert [len(prefix.token_ids) for prefix in found] == [40, 33, 12]
    assert sorted(branch.name for prefix in found for branch in prefix.branches) == sorted(
        branch.name for branch in branches
    )
    for prefix in found:
        assert all(prefix.token_ids[: branch.depth] == branch.prefix_ids for branch in prefix.branches)
    first, rest = split(found[0], 3)
    assert [branch.depth for branch in first.branches] == [40, 40, 37]
    assert rest.token_ids == found[0].token_ids[:37]


def test_names_and_prefixes_are_checked():
    twice = [Branch("a", (1, 2), 0, 0), Branch("b", (1,), 1, 0), Branch("a", (1, 2), 2, 0)]
    with pytest.raises(ValueError, match="'a': they would draw the same"):
        shared_prefixes_of(twice)
    with pytest.raises(ValueError, match="'a' has an empty prefix"):
        shared_prefixes_of([Branch("a", (), 0, 0)])
    assert branches_of([]) == shared_prefixes_of([]) == []
