"""Texts that say the same are found, others are not."""

import itertools
import random
import zlib

import pytest

from alignlab.synthesis.duplicates import (
    first_of_their_kind,
    like_one_of,
    normalised,
    shingles,
    similarity,
)

WORDS = [f"word{number}" for number in range(400)]


def text(rng, length=60):
    return " ".join(rng.choices(WORDS, k=length))


def changed(given, rng, changes):
    words = given.split()
    for place in rng.sample(range(len(words)), changes):
        words[place] = "other"
    return " ".join(words)


def plain_similarity(one, other):
    runs = [set(itertools.pairwise(itertools.pairwise(given.split()))) for given in (one, other)]
    return len(runs[0] & runs[1]) / len(runs[0] | runs[1])


def test_similarity_is_the_share_of_common_runs_of_three_words():
    rng = random.Random(0)
    for changes in (0, 1, 3, 10):
        one = text(rng)
        other = changed(one, rng, changes)
        assert similarity(shingles(one), shingles(other)) == pytest.approx(plain_similarity(one, other))


def test_near_copies_go_and_the_first_stays():
    rng = random.Random(1)
    texts = [text(rng) for _ in range(50)]
    copies = [changed(given, rng, 1) for given in texts[:20]]
    assert all(plain_similarity(*pair) > 0.85 for pair in zip(texts, copies, strict=False))
    assert first_of_their_kind([*texts, *copies], 0.85) == [True] * 50 + [False] * 20


def test_the_threshold_decides():
    rng = random.Random(2)
    one = text(rng)
    other = changed(one, rng, 6)
    alike = plain_similarity(one, other)
    assert first_of_their_kind([one, other], alike - 0.01) == [True, False]
    assert first_of_their_kind([one, other], alike + 0.01) == [True, True]


def test_texts_of_other_words_are_all_kept():
    rng = random.Random(3)
    assert all(first_of_their_kind([text(rng) for _ in range(200)], 0.5))


def test_case_and_spacing_do_not_count():
    assert normalised(" Please  Fold\nit ") == normalised("please fold it")
    assert first_of_their_kind(["Please fold the paper", "please  fold the PAPER"], 1.0) == [True, False]


def test_short_texts_are_compared_whole():
    assert first_of_their_kind(["fold", "fold it", "fold", ""], 0.9) == [True, True, False, True]


def test_prompts_of_an_evaluation_set_are_found():
    held_out = ["how do I fold a paper crane out of one square sheet", "name the tallest tree of this forest"]
    prompts = ["How do I fold a paper crane out of one square sheet?", "how do I bake bread", held_out[1]]
    assert like_one_of(prompts, held_out, 0.8) == [True, False, True]
    assert like_one_of(prompts, [], 0.8) == [False] * 3


def test_the_hashes_are_the_same_everywhere():
    """Python's own are not; a merge of shards relies on every shard dropping the same requests."""
    runs = ["fold the paper", "the paper twice"]
    assert shingles("Fold the paper twice").tolist() == sorted(zlib.crc32(run.encode()) for run in runs)
