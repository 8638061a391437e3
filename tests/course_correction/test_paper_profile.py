"""`profile=paper`: token by token the reference code's prefixes, whose strings are written out here by hand."""

import random

import pytest

from alignlab.course_correction.phrases import AFFIRMATIVE_PREFIXES, PAPER_PREFIXES
from alignlab.course_correction.prefixes import PrefixRecipe, build_prefixes
from alignlab.data.records import HarmRequest
from alignlab.io.hashes import text_id
from alignlab.models.prompts import PromptEncoder
from support.templates import FAMILIES, tokenizer_of

KS = (10, 20, 40, 80)
REQUESTS = 40
WORDS = ("take", "some", "flour", "then", "add", "two", "eggs", "and", "stir", "it", "well", "please", "wait")


def request(number):
    """A response of 30 to 120 words in lines and sentences; every tenth names a special token."""
    rng = random.Random(number)
    words = [rng.choice(WORDS) for _ in range(rng.randint(30, 120))]
    text = " ".join(f"{word}.\n\n" if index % 11 == 10 else word for index, word in enumerate(words)).strip()
    text += " </s> <|im_end|> <|eot_id|>" if number % 10 == 9 else ""
    prompt = f"Where is box number {number} on the table?"
    return HarmRequest(text_id(prompt, text), prompt, None, text, f"made up {number}")


def rendered(family, prompt, prefix):
    """What each family's template writes of a user turn, an assistant turn and a generation prompt, without </s>."""
    if family == "llama2":  # its turn ends in a space and </s>; it has no generation prompt
        return f"<s>[INST] {prompt} [/INST] {prefix.strip()} "
    if family == "qwen2":
        return (
            "<|im_start|>system\nhelpful assistant<|im_end|>\n"
            f"<|im_start|>user\n{prompt}<|im_end|>\n<|im_start|>assistant\n{prefix}<|im_end|>\n"
            "<|im_start|>assistant\n"
        )
    header = "<|start_header_id|>{}<|end_header_id|>\n\n{}"
    turns = header.format("user", f"{prompt}<|eot_id|>") + header.format("assistant", f"{prefix.strip()}<|eot_id|>")
    return f"<|begin_of_text|>{turns}" + header.format("assistant", "")


def expected(family, tokenizer, request, phrase, k):
    """The tokens of the rendered text, read with the tokenizer's own special tokens."""
    words = f"{phrase} {request.harmful_response}".split()
    prefix = " ".join(words[:k]) if k < len(words) else f"{phrase} {request.harmful_response}"
    return tokenizer(rendered(family, request.prompt, prefix).replace("</s>", ""))["input_ids"]


@pytest.fixture(params=("llama2", "qwen2", "llama3"))
def family(request):
    return request.param


def built(family, profile="paper", samples=1):
    encoder = PromptEncoder(tokenizer_of(FAMILIES[family]), None)
    recipe = PrefixRecipe(KS, profile, "reinject_header", is_toy=False, samples=samples)
    requests = [request(number) for number in range(REQUESTS)]
    return encoder, requests, build_prefixes(requests, encoder, recipe)


def num_equal(family, profile):
    encoder, requests, prefixes = built(family, profile)
    by_id = {one.id: one for one in requests}
    assert len(prefixes.kept) == REQUESTS * len(KS) == 160
    return sum(
        prefix.ids == expected(family, encoder.tokenizer, by_id[prefix.request.id], prefix.phrase.text, prefix.k)
        for prefix in prefixes.kept
    )


def test_all_160_prefixes_are_the_reference_codes(family):
    assert num_equal(family, "paper") == 160


def test_the_other_profile_is_not(family):
    """Control: `words` has a turn of its own, one BOS, and no special token from the data."""
    assert num_equal(family, "words") < 160


def test_the_oddities_are_there():
    encoder, _, prefixes = built("llama2")
    ids = prefixes.kept[0].ids
    assert ids[:2] == [encoder.tokenizer.bos_token_id] * 2, "a second BOS"
    assert encoder.tokenizer.convert_ids_to_tokens(ids[-1]) == "\u2581", "a space token at the end"
    assert encoder.tokenizer.eos_token_id not in ids
    encoder, _, prefixes = built("llama3")
    assert encoder.tokenizer.decode(prefixes.kept[0].ids).count("<|start_header_id|>assistant") == 2
    whole = [prefix for prefix in prefixes.kept if "\n" in prefix.text]
    assert whole, "a response that is prefilled whole keeps its line breaks"
    assert prefixes.whole[80] == sum(prefix.k == 80 for prefix in whole)


def test_every_path_has_a_phrase_of_its_own():
    _, requests, prefixes = built("qwen2", samples=20)
    first = [prefix for prefix in prefixes.kept if prefix.request.id == requests[0].id and prefix.k == 10]
    assert [prefix.first_sample for prefix in first] == list(range(20))
    assert len({prefix.phrase.text for prefix in first}) > 5
    ids = [name for prefix in prefixes.kept for name in prefix.sample_ids]
    assert len(set(ids)) == len(ids) == REQUESTS * len(KS) * 20
    assert len({prefix.id for prefix in prefixes.kept}) == len(prefixes.kept)


def test_the_phrases_take_as_many_words_as_the_reference_codes():
    lengths = [len(phrase.split()) for phrase in PAPER_PREFIXES]
    assert (len(lengths), min(lengths), max(lengths)) == (15, 7, 10)
    assert sum(lengths) / len(lengths) == pytest.approx(7.7, abs=0.05)
    assert not set(PAPER_PREFIXES) & {*AFFIRMATIVE_PREFIXES["training"], *AFFIRMATIVE_PREFIXES["evaluation"]}
