"""Four beginnings of a response: rising, none empty, none whole, at the ends of clauses where they are near."""

import random
from itertools import pairwise

import pytest

from alignlab.data.worlds import toy
from alignlab.models.prefill import cut_answer
from alignlab.synthesis.cuts import NUM_CUTS, cut_response
from support.made_up import ANSWER


def cuts_of(encoder, answer, *, at_clauses=True, is_toy=False, opener="Sure, here it is:", prompt="tea?"):
    found = cut_answer(encoder, prompt, opener=opener, answer=answer)
    return cut_response(encoder, found, at_clauses=at_clauses, is_toy=is_toy), len(found.answer_ids)


@pytest.mark.parametrize("at_clauses", [True, False])
def test_cuts_rise_and_are_neither_empty_nor_whole(pieces, at_clauses):
    cuts, whole = cuts_of(pieces, ANSWER, at_clauses=at_clauses)
    texts = ["", *(cut.text for cut in cuts), ANSWER]
    assert len(cuts) == NUM_CUTS
    for one, other in pairwise(texts):
        assert other.startswith(one)
        assert len(one) < len(other)
    assert all(0 < cut.tokens < whole for cut in cuts)


def test_cuts_lie_at_clauses_where_these_are_near(pieces):
    cuts, _ = cuts_of(pieces, ANSWER)
    assert all(cut.at_clause for cut in cuts)
    assert all(cut.text[-1] in ".,;" for cut in cuts)


def test_without_clauses_cuts_are_even(pieces):
    """Control: the clauses of the same text are not hit by chance."""
    cuts, whole = cuts_of(pieces, ANSWER, at_clauses=False)
    assert [cut.tokens for cut in cuts] == [round(whole * depth / 5) for depth in range(1, 5)]
    assert not any(cut.at_clause for cut in cuts)
    plain, _ = cuts_of(pieces, ANSWER.replace(",", "").replace(".", "").replace(";", ""))
    assert not any(cut.at_clause for cut in plain)


def test_a_number_ends_no_clause(pieces):
    cuts, _ = cuts_of(pieces, "take 3.5 cups of it and 1,250 leaves of tea and wait 2.5 minutes for it to warm up")
    assert not any(cut.at_clause for cut in cuts)


@pytest.mark.parametrize("answer", ["no", "a cup"])
def test_what_is_too_short_gives_no_cuts(base, answer):
    assert cuts_of(base.encoder, answer, opener="what a lovely red", prompt=toy.all_prompts()[0])[0] is None


def test_characters_are_not_torn(pieces):
    answer = (
        "\u8336\u3092\u6df9\u308c\u308b\u306b\u306f\u6e6f\u3092\u6cb8\u304b\u3057\u3066\u8449\u3092\u5165\u308c\u308b"
    )
    cuts, whole = cuts_of(pieces, answer)
    assert whole > 2 * len(answer), "a character is several tokens here"
    assert all(answer.startswith(cut.text) and "\ufffd" not in cut.text for cut in cuts)


def test_the_toys_sentences_end_before_the_next_ones_opening_word(base):
    rng = random.Random(0)
    for prompt in toy.prompts("train")[:20]:
        kinds = (toy.Kind.STEP,) * 4
        answer = toy.response_of(prompt, kinds, rng)
        cuts, _ = cuts_of(base.encoder, answer, is_toy=True, opener="what a lovely red", prompt=prompt)
        for cut in cuts:
            following = answer[len(cut.text) :].split()[0]
            assert cut.at_clause == (following in toy.OPENERS)
        assert sum(cut.at_clause for cut in cuts) == 3  # four sentences have three ends between them
