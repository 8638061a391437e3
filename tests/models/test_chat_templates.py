"""Prompts and responses by the chat templates of the usual families: their own tokens, none that data smuggle in."""

import pytest

from alignlab.data.records import Turn
from alignlab.models.prompts import PromptEncoder
from support.templates import FAMILIES, tokenizer_of

REQUEST, ANSWER = "Where is my red box?", "Sure, here are the first steps"
TALK = (Turn("user", "good day"), Turn("assistant", "good day, what now"), Turn("user", REQUEST))
ENDS = {"gemma": "<end_of_turn>", "phi3": "<|end|>"}
"""Of the other families the tokenizer's EOS ends a turn."""
_made = {}


def encoder_of(family):
    if family.name not in _made:
        _made[family.name] = PromptEncoder(tokenizer_of(family), family.template if family.is_string else None)
    return _made[family.name]


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


@pytest.fixture(params=[name for name, family in FAMILIES.items() if not family.is_string])
def chat(request):
    return FAMILIES[request.param]


def messages(turns):
    return [{"role": turn.role, "content": turn.content} for turn in turns]


def controls(encoder, ids):
    """The special and added tokens, in order."""
    return [token for token in ids if token in encoder.tokenizer.added_tokens_decoder]


def with_bos(encoder, ids):
    """BOS in front, where the tokenizer puts one before texts and the template writes none."""
    bos = encoder.tokenizer.bos_token_id
    adds = bos is not None and encoder.tokenizer("a")["input_ids"][0] == bos
    return [bos, *ids] if adds and ids[0] != bos else ids


@pytest.mark.parametrize("prompt", [REQUEST, TALK], ids=["request", "conversation"])
def test_the_tokens_are_those_that_the_template_writes_around_an_answer(chat, prompt):
    """Transformers' own rendering of the finished conversation holds exactly this prompt and response."""
    encoder = encoder_of(chat)
    turns = (Turn("user", prompt),) if isinstance(prompt, str) else prompt
    whole = encoder.tokenizer.apply_chat_template(messages([*turns, Turn("assistant", ANSWER)]), return_dict=False)
    row = encoder.encode(prompt, ANSWER)
    ids = row.prompt_ids + row.response_ids
    expected = with_bos(encoder, whole)
    if chat.name == "glm4":  # writes nothing after an answer
        expected = [*expected, encoder.tokenizer.eos_token_id]
    assert ids[:-1] == expected[: len(ids) - 1]
    if chat.name != "llama2":  # writes a space before </s>
        assert ids[-1] == expected[len(ids) - 1]


def test_a_prompt_is_what_transformers_makes_of_it(chat):
    encoder = encoder_of(chat)
    ids = encoder.tokenizer.apply_chat_template(messages(TALK), add_generation_prompt=True, return_dict=False)
    thought = encoder.prompt_ids(TALK)[len(with_bos(encoder, ids)) :]
    assert encoder.prompt_ids(TALK)[: len(with_bos(encoder, ids))] == with_bos(encoder, ids)
    assert encoder.tokenizer.decode(thought) == ("<think>\n\n</think>\n\n" if chat.name == "qwen3" else "")


def test_one_bos_and_one_end(family):
    encoder = encoder_of(family)
    row = encoder.encode(REQUEST, ANSWER)
    ids = row.prompt_ids + row.response_ids
    if family.adds_bos:
        assert ids[0] == encoder.tokenizer.bos_token_id
        assert ids.count(encoder.tokenizer.bos_token_id) == 1
    end = encoder.tokenizer.convert_tokens_to_ids(ENDS.get(family.name, family.eos))
    assert encoder.end_id == end
    assert ids[-1] == end
    assert row.response_ids.count(end) == 1


def test_prompt_and_response_meet_at_a_token_boundary(chat):
    encoder = encoder_of(chat)
    row = encoder.encode(REQUEST, ANSWER)
    assert row.prompt_ids == encoder.prompt_ids(REQUEST)
    assert not row.merged
    assert encoder.response_text(row) == ANSWER


def test_a_merge_across_the_boundary_is_counted():
    family = FAMILIES["vicuna"]
    encoder = PromptEncoder(tokenizer_of(family), "USER: {raw_prompt} A")
    assert encoder.encode(REQUEST, "nd").merged


def evil_of(encoder, family):
    names = [name for name in encoder.tokenizer.added_tokens_encoder if name not in family.plain]
    return " ".join(names), "".join(names)


def test_text_of_special_tokens_stays_text(family):
    encoder = encoder_of(family)
    plain = encoder.encode(REQUEST, ANSWER)
    for evil in evil_of(encoder, family):
        row = encoder.encode(f"{REQUEST} {evil} now", f"{ANSWER} {evil} now")
        assert controls(encoder, row.prompt_ids) == controls(encoder, plain.prompt_ids)
        assert controls(encoder, row.response_ids) == controls(encoder, plain.response_ids)
        assert evil in encoder.tokenizer.decode(row.prompt_ids), "and it is still there"
        assert evil in encoder.tokenizer.decode(row.response_ids)


def test_text_of_special_tokens_would_not_stay_text(chat):
    """The control: the template's text, tokenised as it is, holds what the data smuggle in."""
    encoder = encoder_of(chat)
    evil, _ = evil_of(encoder, chat)
    text = encoder.tokenizer.apply_chat_template(messages([Turn("user", evil)]), tokenize=False)
    ids = encoder.tokenizer(text, add_special_tokens=False)["input_ids"]
    assert len(controls(encoder, ids)) > len(controls(encoder, encoder.prompt_ids(REQUEST)))


def shared_end(left, right):
    """How many tokens both end with."""
    pairs = zip(reversed(left), reversed(right), strict=False)
    return next((index for index, (a, b) in enumerate(pairs) if a != b), min(len(left), len(right)))


def test_special_text_changes_nothing_around_it(chat):
    """Cutting the text at the data's marks leaves the template's own tokens as they are."""
    encoder = encoder_of(chat)
    one, other, evil = (encoder.encode(f"{REQUEST} {word}", ANSWER) for word in ("red", "blue", chat.eos))
    after = shared_end(one.prompt_ids, other.prompt_ids)
    assert after > 0
    assert evil.prompt_ids[-after:] == one.prompt_ids[-after:]
    assert evil.response_ids == one.response_ids


def test_a_thought_in_a_response_keeps_its_tokens_and_in_a_request_does_not():
    family = FAMILIES["qwen3"]
    encoder = encoder_of(family)
    thought = encoder.tokenizer.convert_tokens_to_ids("<think>")
    row = encoder.encode("say <think> please", "<think>\nhm\n</think>\n\nwell")
    assert thought in row.response_ids
    assert row.response_ids.count(thought) == 1, "the answer opens its own thought, and no second one"
    assert row.prompt_ids.count(thought) == 0
    assert encoder.prompt_ids("say <think> please").count(thought) == 1, "the empty one of an answer at once"


def test_many_rows_are_tokenised_as_one_by_one(family):
    encoder = encoder_of(family)
    evil, _ = evil_of(encoder, family)
    texts = [(REQUEST, ANSWER), (TALK, ANSWER), (evil, ANSWER), (REQUEST, evil), (TALK, ""), (REQUEST, " padded\n")]
    assert encoder.encode_all(texts) == [encoder.encode(*pair) for pair in texts]


def test_an_empty_response_is_its_end(chat):
    encoder = encoder_of(chat)
    row = encoder.encode(REQUEST, "")
    assert row.response_ids[-1] == encoder.end_id
    assert encoder.response_text(row) == ""


def test_code_points_that_are_no_text_cannot_forge_a_mark(chat):
    encoder = encoder_of(chat)
    row = encoder.encode(f"a \ufdd0{chat.eos}\ufdd1 b", "c")
    assert controls(encoder, row.prompt_ids) == controls(encoder, encoder.prompt_ids(REQUEST))


def test_a_system_turn_is_the_templates_business():
    encoder = encoder_of(FAMILIES["qwen2"])
    text = encoder.tokenizer.decode(encoder.prompt_ids((Turn("system", "be kind"), Turn("user", "hello"))))
    assert text.startswith("<|im_start|>system\nbe kind<|im_end|>\n<|im_start|>user\nhello<|im_end|>")
