"""Minus the length, exactly."""

import torch

from alignlab.data.records import CutText
from alignlab.engine.scoring.rows import fit
from alignlab.models.prompts import Encoded
from alignlab.rewards.base import TextReward
from alignlab.rewards.length import LengthReward
from alignlab.rewards.probe import log_lengths


def test_words_and_tokens_are_counted_without_eos(base, texts):
    prompts, responses = zip(*texts, strict=True)
    words = LengthReward(base.encoder, unit="words", scale=1.0).score(prompts, responses)
    tokens = LengthReward(base.encoder, unit="tokens", scale=1.0).score(prompts, responses)
    assert words.tolist() == [-len(response.split()) for response in responses]
    assert tokens.equal(words), "the toy's tokens are its words"
    assert words.dtype == torch.float32


def test_scale_is_the_price_of_one(base, texts):
    prompts, responses = zip(*texts, strict=True)
    one = LengthReward(base.encoder, unit="tokens", scale=1.0).score(prompts, responses)
    tenth = LengthReward(base.encoder, unit="tokens", scale=0.125).score(prompts, responses)
    assert (one * 0.125).equal(tenth)


def test_neighbouring_lengths_differ_where_bfloat16_would_not(base):
    reward = LengthReward(base.encoder, unit="tokens", scale=1.0)
    scores = reward.score_encoded([Encoded([1], [5] * length) for length in (256, 257, 512, 513)])
    assert scores.tolist() == [-256, -257, -512, -513]
    assert len(set(scores.bfloat16().tolist())) == 2, "control: bfloat16 tells them apart no more"


def test_tokens_and_texts_agree_and_a_cut_response_is_as_long_as_it_was_cut(base, texts):
    reward = LengthReward(base.encoder, unit="words", scale=1.0)
    rows = base.encoder.encode_all(texts)
    assert reward.score_encoded(rows).equal(reward.score(*zip(*texts, strict=True)))
    cut = [fit(row, len(row.prompt_ids) + 3) for row in rows]
    assert set(reward.score_encoded(cut).tolist()) == {-3.0}


def test_a_row_that_was_cut_reaches_a_reward_of_texts_as_cut(base, texts):
    """So does a sample that the length limit ended, of which there are tokens alone: no scorer appends an end to it."""
    given = []

    class Recorder(TextReward):
        def score(self, prompts, responses):
            given.extend(responses)
            return torch.zeros(len(responses))

    rows = base.encoder.encode_all(texts)
    sampled = [Encoded(row.prompt_ids, row.response_ids, row.prompt) for row in rows]
    cut = [Encoded(row.prompt_ids, row.response_ids[:-1], row.prompt) for row in rows]
    Recorder("recorder", base.encoder).score_encoded([*sampled, *cut])
    whole, rest = given[: len(rows)], given[len(rows) :]
    assert whole == [response for _, response in texts]
    assert not any(isinstance(text, CutText) for text in whole)
    assert rest == [CutText(response) for _, response in texts]


def test_the_log_of_a_length_counts_no_end_where_there_is_none(base, texts):
    rows = base.encoder.encode_all(texts)
    words = torch.tensor([len(response.split()) for _, response in texts], dtype=torch.float64)
    torch.testing.assert_close(log_lengths(rows, base.encoder), words.log1p())
    cut = [Encoded(row.prompt_ids, row.response_ids[:-1]) for row in rows]
    torch.testing.assert_close(log_lengths(cut, base.encoder), words.log1p())
