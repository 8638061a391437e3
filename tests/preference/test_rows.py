"""Pairs as tokens: each text is read once, whatever the number of pairs that hold it."""

from alignlab.data.records import RankedRow, pairs_by
from alignlab.models.prompts import PromptEncoder
from alignlab.models.scratch import word_tokenizer
from alignlab.preference.rows import encode_pairs

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
    encoded = encode_pairs(pairs_by([row], "brief"), encoder, max_length=16)
    assert (len(encoded.pairs), encoded.cut, encoded.too_long) == (3, 2, 0)
