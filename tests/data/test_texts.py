"""Texts that say nothing, and texts that say the same."""

import pytest

from alignlab.data.splits import split_of
from alignlab.data.texts import blank_text, canonical, folded, is_blank, normalised

ZERO_WIDTH = ["\u200b", "\u200d\u200c", "\ufeff", "\u2060 \u00ad", "\u3164", "\u2800", "\ufe0f"]


@pytest.mark.parametrize("text", ["", " \n\t", "\u00a0", *ZERO_WIDTH])
def test_nothing_to_see_is_blank(text):
    assert is_blank(text)
    assert not is_blank(f"{text}.")


SAME = [
    ("What is this?", "what  is this"),
    ("Don't go!", "don\u2019t go"),
    ('"Quoted"', "\u201cquoted\u201d"),
    ("zero\u200bwidth", "zerowidth"),
    ("caf\u00e9...", "cafe\u0301"),
    ("\uff1fwhat\uff1f", "what"),
    ("\u00bfque\u0301 tal?", "qu\u00e9 tal"),
    ("`it's`", "its"),
]


@pytest.mark.parametrize(("one", "other"), SAME)
def test_spellings_of_one_request(one, other):
    assert normalised(one) == normalised(other)
    assert split_of(one, 0.5) == split_of(other, 0.5)


@pytest.mark.parametrize(("one", "other"), [("C", "C#"), ("2+2", "22"), ("a.b", "ab"), ("?", "!"), ("re do", "redo")])
def test_other_requests_stay_apart(one, other):
    assert normalised(one) != normalised(other) or not normalised(one)


def test_no_spelling_moves_a_prompt_to_another_split():
    """The control: without normalising, one in three would move."""
    prompts = [f"what is number {number}" for number in range(300)]
    spelled = [f"\u201cWhat is\u200b number {number}?\u201d" for number in range(300)]
    assert [split_of(text, 0.2) for text in prompts] == [split_of(text, 0.2) for text in spelled]
    assert len({normalised(text) for text in prompts}) == 300


ONE_TEXT = [
    ("caf\u00e9 ", "cafe\u0301\u200b"),
    ("a\u00a0b", "a b"),
    ("a\u2003b", "a b"),
    ("a\u1680b", "a b"),
    ("a\u3000b", "a b"),
    ("a\u2028b", "a\nb"),
    ("\uff21\uff22\uff11\uff01", "AB1!"),
    ("\uff76\uff9e", "\u30ac"),
    ("\ufb01ne", "fine"),
    ("\ud55c", "\u1112\u1161\u11ab"),
    ("x\u00b2\u00a0cm", "x\u00b2 cm"),
    ("a\u0000b\u0007", "ab"),
    ("\U000e0041hi\u180f", "hi"),
]


@pytest.mark.parametrize(("one", "other"), ONE_TEXT)
def test_answers_of_another_unicode_form_are_the_same(one, other):
    assert canonical(one) == canonical(other)


KEPT_APART = [("x\u00b2", "x2"), ("\u00bd", "1\u20442"), ("a  b", "a b"), ("a\tb", "a b")]


@pytest.mark.parametrize(("one", "other"), KEPT_APART)
def test_exponents_fractions_and_ascii_spacing_are_kept(one, other):
    assert canonical(one) != canonical(other)


def test_folding_keeps_the_blanks_around_a_text():
    assert folded(" \u00a0x\n") == "  x\n"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (" \n", "is empty"),
        ("\u00a0", "holds nothing but Unicode spaces, which say nothing"),
        ("\u2028\u3000", "holds nothing but Unicode spaces, which say nothing"),
        ("\u200b \u00a0", "holds nothing but zero-width characters and Unicode spaces, which say nothing"),
        ("\u0000\u001b", "holds nothing but control characters, which say nothing"),
    ],
)
def test_what_a_blank_text_holds(text, said):
    assert is_blank(text)
    assert blank_text(text) == said
