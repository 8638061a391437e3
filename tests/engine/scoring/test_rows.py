"""Pairs as tokens: one boundary for both responses, and each text read once, whatever the number of pairs."""

import pytest

from alignlab.data.records import Pair, RankedRow, pairs_by
from alignlab.engine.scoring.rows import encode_pairs, encode_what_fits, fit, one_boundary
from alignlab.errors import ConfigError
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.models.rendering import TemplateError
from alignlab.models.scratch import bpe_tokenizer, word_tokenizer

WORDS = ["please", "turn", "now", "the", "widget", "gently", "user:", "assistant:"]


class Counting(PromptEncoder):
    """Counts the texts that it is given."""

    texts = 0

    def encode_all(self, texts):
        self.texts += len(texts)
        return super().encode_all(texts)


def test_a_ranking_of_six_is_tokenised_once_and_makes_fifteen_pairs():
    encoder = Counting(word_tokenizer(WORDS), "user: {raw_prompt} assistant: ")
    responses = tuple(" ".join(["turn"] * count) for count in range(1, 7))
    row = RankedRow("please turn", responses, {"brief": tuple(float(-len(text)) for text in responses)})
    pairs = pairs_by([row], "brief")
    encoded = encode_pairs(pairs, encoder, max_length=64)
    assert (len(encoded.pairs), encoder.texts) == (15, 6)
    for pair, tokens in zip(pairs, encoded.pairs, strict=True):
        assert (tokens.id, tokens.group) == (pair.id, pair.group)
        assert tokens.chosen == encoder.encode(pair.prompt, pair.chosen)
        assert tokens.rejected == encoder.encode(pair.prompt, pair.rejected)


def test_what_is_cut_is_counted_in_every_pair():
    encoder = PromptEncoder(word_tokenizer(WORDS), "user: {raw_prompt} assistant: ")
    responses = ("now", "turn", "turn " * 30)
    row = RankedRow("please", responses, {"brief": (2.0, 1.0, 0.0)})
    encoded = encode_pairs(pairs_by([row], "brief"), encoder, max_length=16, on_long="cut")
    assert (len(encoded.pairs), encoded.cut, encoded.too_long) == (3, 2, 0)
    assert [pair.cut for pair in encoded.pairs] == [False, True, True]


def test_pairs_with_a_long_response_are_left_out_by_default():
    encoder = PromptEncoder(word_tokenizer(WORDS), "user: {raw_prompt} assistant: ")
    row = RankedRow("please", ("now", "turn", "turn " * 30), {"brief": (2.0, 1.0, 0.0)})
    pairs = pairs_by([row], "brief")
    encoded = encode_pairs(pairs, encoder, max_length=16)
    assert (len(encoded.pairs), encoded.cut, encoded.too_long) == (1, 0, 2)
    for limit in range(1, 50):
        dropped, cut = (encode_what_fits(pairs, encoder, max_length=limit, on_long=rule) for rule in ("drop", "cut"))
        assert dropped.pairs == [pair for pair in cut.pairs if not pair.cut]
        assert dropped.too_long + len(dropped.pairs) == cut.too_long + len(cut.pairs) == 3
    with pytest.raises(ConfigError, match=r"max_length=4: none of 3 pairs has two responses that fit; dataset"):
        encode_pairs(pairs, encoder, max_length=4)


def test_nothing_is_left_of_a_response_whose_prompt_fills_the_limit():
    row = Encoded([1] * 20, [2] * 9)
    assert [len(fit(row, limit).response_ids) for limit in (29, 24, 21, 20, 16)] == [9, 4, 1, 0, 0]


def test_a_merged_boundary_moves_for_both_responses():
    """`:` and `)` are one token, so the chosen text has no token that ends where the prompt does."""
    tokenizer = bpe_tokenizer(["say: :) :) :) :) no no no"] * 9, 300)
    encoder = PromptEncoder(tokenizer, "{raw_prompt}:")
    assert len(tokenizer(":)", add_special_tokens=False)["input_ids"]) == 1
    pair = Pair("a", "say", chosen=") no", rejected="no", group="g", objective="better")
    (encoded,) = encode_pairs([pair], encoder, max_length=99).pairs
    assert encoded.chosen.prompt_ids == encoded.rejected.prompt_ids == encoder.prompt_ids("say")[:-1]
    for row, text in ((encoded.chosen, "say:) no"), (encoded.rejected, "say:no")):
        assert row.prompt_ids + row.response_ids == [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]


def test_one_boundary_leaves_equal_ones_alone():
    left, right = Encoded([1, 2], [3, 4]), Encoded([1, 2], [5])
    assert one_boundary(left, right) == (left, right)


class Refusing(PromptEncoder):
    """Refuses what a chat template might, without saying of which text."""

    def encode_all(self, texts):
        if any("gently" in response for _, response in texts):
            raise TemplateError("model.prompt_template=null: refused")
        return super().encode_all(texts)


def test_a_refused_row_is_named_by_file_and_line():
    encoder = Refusing(word_tokenizer(WORDS), "user: {raw_prompt} assistant: ")
    rows = [
        RankedRow("please", ("now", "turn"), {"brief": (1.0, 0.0)}, location="rows.jsonl:1"),
        RankedRow("please", ("now", "gently"), {"brief": (1.0, 0.0)}, location="rows.jsonl:7"),
    ]
    with pytest.raises(TemplateError, match=r"^rows\.jsonl:7: model\.prompt_template=null: refused"):
        encode_pairs(pairs_by(rows, "brief"), encoder, max_length=16)
    assert encode_pairs(pairs_by(rows[:1], "brief"), encoder, max_length=16).pairs, "control"
