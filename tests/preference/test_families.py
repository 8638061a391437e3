"""Training computes what TRL's padded batch computes: losses, log-probabilities and gradients, families and data."""

import random

import pytest
from against_trl import FAMILIES, VOCABULARY, assert_alike, model_of, table_of, trained

from alignlab.models.prompts import Encoded
from alignlab.models.scratch import word_tokenizer
from alignlab.preference.forward import Packing
from alignlab.preference.probe import packing_of
from alignlab.preference.rows import fit


def draw(rng, count):
    return [rng.randrange(3, VOCABULARY) for _ in range(count)]


def plain_pairs():
    """Pairs of different lengths that share their prompts."""
    rng = random.Random(0)
    prompts = [draw(rng, rng.randint(2, 12)) for _ in range(12)]
    return [
        (Encoded(prompt, draw(rng, rng.randint(2, 25))), Encoded(prompt, draw(rng, rng.randint(2, 25))))
        for prompt in prompts
    ]


def all_pairs(prompt, responses):
    rows = [Encoded(prompt, response) for response in responses]
    return [(rows[i], rows[j]) for i in range(len(rows)) for j in range(i + 1, len(rows))]


def ranked_pairs():
    """All pairs of five responses: one of a single token, two corrected ones, one inside another."""
    rng = random.Random(0)
    pairs = []
    for _ in range(2):
        prompt, text, end = draw(rng, 5), draw(rng, 16), draw(rng, 6)
        pairs += all_pairs(prompt, [[2], text[:4] + end, text[:8] + end, text[:8], text])
    return pairs


def one_token_pairs():
    rng = random.Random(1)
    return [(Encoded(draw(rng, 4), draw(rng, 1)), Encoded(draw(rng, 4), draw(rng, 1))) for _ in range(8)]


def same_beginning_pairs():
    """Every prompt and every response begins alike."""
    rng = random.Random(2)
    prompt, text = draw(rng, 8), draw(rng, 10)
    return [(Encoded(prompt, text + draw(rng, 3)), Encoded(prompt, text + draw(rng, 5))) for _ in range(8)]


def nested_pairs():
    """Each response is the beginning of the other."""
    rng = random.Random(3)
    texts = [(draw(rng, 6), draw(rng, 14)) for _ in range(8)]
    pairs = [(Encoded(prompt, text[:7]), Encoded(prompt, text)) for prompt, text in texts]
    return [pair[:: -1 if number % 2 else 1] for number, pair in enumerate(pairs)]


DATA = {
    "pairs": plain_pairs,
    "ranked": ranked_pairs,
    "one token": one_token_pairs,
    "same beginning": same_beginning_pairs,
    "nested": nested_pairs,
}


@pytest.mark.parametrize("family", FAMILIES)
def test_every_family_trains_as_trl_does(family, tmp_path):
    table = table_of(ranked_pairs())
    ours = trained("alignlab", model_of(family), table, tmp_path / "a")
    assert_alike(ours, trained("trl", model_of(family), table, tmp_path / "t"))
    assert packing_of(model_of(family), longest=21) is Packing.TREES
    assert len(ours.gradients[0]) > 10


@pytest.mark.parametrize(("data", "side"), [*((data, "right") for data in DATA), ("pairs", "left")])
def test_all_data_trains_as_trl_does(data, side, tmp_path):
    table, tokenizer = table_of(DATA[data]()), word_tokenizer([])
    tokenizer.padding_side = side
    ours, theirs = (
        trained(kind, model_of("llama"), table, tmp_path / kind, tokenizer=tokenizer) for kind in ("alignlab", "trl")
    )
    assert_alike(ours, theirs)


def test_cut_rows_train_as_trl_cuts_them(tmp_path):
    limit = 15
    pairs = [pair for pair in plain_pairs() if len(pair[0].prompt_ids) < limit]
    cut = [(fit(chosen, limit), fit(rejected, limit)) for chosen, rejected in pairs]
    assert cut != pairs
    ours = trained("alignlab", model_of("llama"), table_of(cut), tmp_path / "a")
    uncut = table_of(pairs)
    assert_alike(ours, trained("trl", model_of("llama"), uncut, tmp_path / "t", settings={"max_length": limit}))
    with pytest.raises(AssertionError):  # control: the limit matters
        assert_alike(ours, trained("trl", model_of("llama"), uncut, tmp_path / "u"))


def test_a_padded_model_trains_as_trl_does(tmp_path, monkeypatch):
    """The way of models that take no forest."""
    monkeypatch.setattr("alignlab.preference.trainer.packing_of", lambda *_, **__: Packing.PADDED)
    table = table_of(ranked_pairs())
    ours = trained("alignlab", model_of("llama"), table, tmp_path / "a")
    assert_alike(ours, trained("trl", model_of("llama"), table, tmp_path / "t"))
