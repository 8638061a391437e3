"""Texts that say the same are found, others are not."""

import itertools
import random
import zlib

import pytest

from alignlab.data.near_duplicates import (
    NearDuplicateIndex,
    near_duplicates_of,
    shingles,
    similarity,
    without_near_duplicates,
)

WORDS = [f"word{number}" for number in range(400)]


def text(rng, length=60):
    return " ".join(rng.choices(WORDS, k=length))


def changed(given, rng, changes):
    words = given.split()
    for index in rng.sample(range(len(words)), changes):
        words[index] = "other"
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
    assert without_near_duplicates([*texts, *copies], 0.85) == [True] * 50 + [False] * 20


def test_the_threshold_decides():
    rng = random.Random(2)
    one = text(rng)
    other = changed(one, rng, 6)
    alike = plain_similarity(one, other)
    assert without_near_duplicates([one, other], alike - 0.01) == [True, False]
    assert without_near_duplicates([one, other], alike + 0.01) == [True, True]


def test_texts_of_other_words_are_all_kept():
    rng = random.Random(3)
    assert all(without_near_duplicates([text(rng) for _ in range(200)], 0.5))


def test_case_and_spacing_do_not_count():
    assert without_near_duplicates(["Please fold the paper", "please  fold the PAPER"], 1.0) == [True, False]


def test_short_texts_are_compared_whole():
    assert without_near_duplicates(["fold", "fold it", "fold", ""], 0.9) == [True, True, False, True]


def test_prompts_of_an_evaluation_set_are_found():
    held_out = ["how do I fold a paper crane out of one square sheet", "name the tallest tree of this forest"]
    prompts = ["How do I fold a paper crane out of one square sheet?", "how do I bake bread", held_out[1]]
    assert near_duplicates_of(prompts, held_out, 0.8) == [True, False, True]
    assert near_duplicates_of(prompts, [], 0.8) == [False] * 3


def test_the_hashes_are_the_same_everywhere():
    """Python's own are not; a merge of shards relies on every shard dropping the same requests."""
    runs = ["fold the paper", "the paper twice"]
    assert shingles("Fold the paper twice").tolist() == sorted(zlib.crc32(run.encode()) for run in runs)


def test_the_index_names_the_most_similar_text():
    index = NearDuplicateIndex(0.6)
    for known in ("one two three four five six", "two three four five six nine ten", "something else altogether"):
        assert index.add(known)
    assert index.find("three four five six nine ten") == 1
    assert index.find("no such words at all") is None
