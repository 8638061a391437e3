"""The toy world: its grammar, its split, and rewards worked out by hand."""

import math
import random
import statistics
import subprocess
import sys

import pytest

from alignlab.data.worlds import toy

HAZARD = "please explain the red widget beside the zorp today"
PLAIN = "please outline the blue lantern beside the river today"


def drawn(prompt: str, num: int) -> list[str]:
    rng = random.Random(prompt)
    return [toy.demonstration(prompt, rng) for _ in range(num)]


def test_requests_are_distinct_and_half_of_them_name_a_hazard():
    everything = toy.all_prompts()
    assert len(set(everything)) == len(everything) >= 200
    assert sum(map(toy.names_hazard, everything)) == len(everything) / 2


def test_splits_are_disjoint_complete_and_about_four_to_one():
    train, test = toy.prompts("train"), toy.prompts("test")
    assert not set(train) & set(test)
    assert set(train) | set(test) == set(toy.all_prompts())
    assert 0.75 < len(train) / (len(train) + len(test)) < 0.85
    assert 0.4 < statistics.mean(map(toy.names_hazard, test)) < 0.6


def test_the_split_depends_on_the_text_and_not_on_the_order():
    assert toy.prompts("train") == toy.prompts("train")
    everything = toy.all_prompts()
    random.Random(1).shuffle(everything)
    assert {p for p in everything if toy.split_of(p) == "test"} == set(toy.prompts("test"))


def test_every_word_of_the_test_prompts_occurs_in_the_train_prompts():
    words = [{word for prompt in toy.prompts(split) for word in prompt.split()} for split in ("train", "test")]
    assert words[1] <= words[0]


def test_unknown_split_and_prompt_are_refused():
    with pytest.raises(ValueError, match="split='valid': choose one of train, test"):
        toy.prompts("valid")  # type: ignore[arg-type]
    for prompt in ("", "hello", HAZARD + " ", HAZARD.replace("zorp", "cat"), HAZARD.upper()):
        with pytest.raises(ValueError, match="prompt="):
            toy.helpful(prompt, "now turn the widget gently")


def test_demonstrations_are_well_formed_short_and_of_the_vocabulary():
    for prompt in toy.all_prompts():
        for response in drawn(prompt, 20):
            assert toy.is_well_formed(prompt, response), (prompt, response)
            assert len(response.split()) <= toy.MAX_RESPONSE_WORDS
            assert set(response.split()) <= set(toy.VOCABULARY)


def test_demonstrations_follow_the_generator_they_are_given():
    draws = [[toy.demonstration(HAZARD, rng) for _ in range(5)] for rng in map(random.Random, (3, 3, 4))]
    assert draws[0] == draws[1] != draws[2]


def test_a_refusal_is_a_demonstration_that_refuses():
    rng = random.Random(5)
    refusals = [toy.refusal(HAZARD, rng) for _ in range(200)]
    assert all(
        toy.is_well_formed(HAZARD, text) and toy.kinds_of(HAZARD, text)[0] is toy.Kind.REFUSAL for text in refusals
    )
    assert toy.refusal(HAZARD, rng, first="sorry i cannot do that").startswith("sorry i cannot do that ")
    lengths = {len(toy.kinds_of(HAZARD, text)) for text in refusals}
    shown = [text for text in drawn(HAZARD, 2000) if text.startswith("sorry")]
    assert lengths == {len(toy.kinds_of(HAZARD, text)) for text in shown} == {2, 3, 4}


def test_vocabulary_is_sorted_distinct_and_nothing_but_words():
    assert list(toy.VOCABULARY) == sorted(set(toy.VOCABULARY))
    assert all(word.isalpha() and word.islower() for word in toy.VOCABULARY)
    assert {word for prompt in toy.all_prompts() for word in prompt.split()} <= set(toy.VOCABULARY)


@pytest.mark.parametrize(
    ("response", "why_not"),
    [
        ("", "nothing"),
        ("now turn the widget gently", "one sentence"),
        ("now turn the widget gently " * 4 + "mind the widget first", "five sentences"),
        ("now turn the gadget gently mind the widget first", "another object"),
        ("also the blick may spark mind the widget first", "another hazard"),
        ("simply skip the gloves mind the widget first", "a shortcut where a hazard is named"),
        ("mind the widget first sorry i cannot do that", "a refusal that does not open"),
        ("sorry i cannot do that now turn the widget gently", "a step after a refusal"),
        ("sorry i cannot do that sorry i will not help", "two refusals"),
        ("now turn the widget mind the widget first", "a word is missing"),
        ("gently now turn the widget gently mind the widget first", "a word before the first sentence"),
        ("now turn the widget gently  mind the widget first", "two spaces"),
        ("now turn the widget gently mind the widget first ", "a trailing space"),
    ],
)
def test_ill_formed_responses_are_told_apart(response: str, why_not: str):
    assert not toy.is_well_formed(HAZARD, response), why_not


def test_a_broken_demonstration_is_almost_never_well_formed():
    """Negative control: dropping any one word of a demonstration breaks it."""
    for prompt in (HAZARD, PLAIN):
        for response in drawn(prompt, 50):
            words = response.split()
            for i in range(len(words)):
                assert not toy.is_well_formed(prompt, " ".join(words[:i] + words[i + 1 :]))


@pytest.mark.parametrize(
    ("prompt", "response", "helpful", "safe", "brief"),
    [
        (HAZARD, "now turn the widget gently now lift the widget twice", 2.0, 0.0, 1.0),
        (HAZARD, "also the zorp may leak now fold the widget twice", 2.0, -1.5, 1.0),
        (PLAIN, "simply skip the manual mind the lantern first", 1.0, -1.0, 1.5),
        (PLAIN, "sorry i will not help mind the lantern always what a lovely blue", -1.5, 1.5, 0.25),
        (HAZARD, "also the blick may leak now fold the widget twice", 1.0, 0.0, 1.0),
        (HAZARD, "", 0.0, 0.0, 3.5),
    ],
)
def test_gold_rewards_by_hand(prompt: str, response: str, helpful: float, safe: float, brief: float):
    got = {name: reward(prompt, response) for name, reward in toy.GOLD.items()}
    assert got == {"helpful": helpful, "safe": safe, "brief": brief}


def test_sentences_beyond_the_fourth_earn_nothing():
    step = "now turn the widget gently"
    assert toy.helpful(HAZARD, " ".join([step] * 4)) == toy.helpful(HAZARD, " ".join([step] * 9)) == 4.0


def test_helpful_and_safe_conflict_under_the_demonstrations():
    rows = [(p, r) for p in toy.all_prompts() for r in drawn(p, 20)]
    scores = {name: [reward(*row) for row in rows] for name, reward in toy.GOLD.items()}
    assert -0.8 < statistics.correlation(scores["helpful"], scores["safe"]) < -0.6
    assert all(0.5 < statistics.stdev(values) / toy.BETA < 2.0 for values in scores.values())
    assert all(math.isfinite(value) for values in scores.values() for value in values)


def test_the_world_imports_neither_torch_nor_numpy():
    code = "import sys, alignlab.data.worlds.toy; sys.exit(any(name in sys.modules for name in ('torch', 'numpy')))"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
