"""A prefix is real: for every family of templates the turn is open, once begun, and nothing of the data is control."""

import re

import pytest

from alignlab.data.records import Turn
from alignlab.models.prefill import cut_answer, header_ids, open_turn
from alignlab.models.prompts import PromptEncoder
from support.templates import FAMILIES, tokenizer_of

REQUEST, PREFIX = "Where is my red box?", "Sure, here are the first steps"
CHATS = [name for name, family in FAMILIES.items() if not family.is_string]
CONVERSATION = (Turn("user", "good day"), Turn("assistant", "good day, what now"), Turn("user", REQUEST))
_made = {}


@pytest.fixture(params=FAMILIES)
def family(request):
    return FAMILIES[request.param]


def encoder_of(family):
    if family.name not in _made:
        _made[family.name] = PromptEncoder(tokenizer_of(family), family.template if family.is_string else None)
    return _made[family.name]


def closed(family, prefix=PREFIX, **how):
    """The conversation as the family writes it when the answer is over."""
    messages = [{"role": "user", "content": REQUEST}, {"role": "assistant", "content": prefix}]
    return encoder_of(family).tokenizer.apply_chat_template(messages, tokenize=False, **how)


def controls(encoder, ids):
    """The special and added tokens, in order."""
    return [token for token in ids if token in encoder.tokenizer.added_tokens_decoder]


def faults(family, ids, prefix=PREFIX):
    """What is wrong with an open turn: the checks that every family passes and the reference's way does not."""
    encoder = encoder_of(family)
    text = encoder.tokenizer.decode(ids, skip_special_tokens=False)
    found = []
    if not text.endswith(prefix):
        found.append("does not end with the prefix")
    if text.count(header_of(family)) != 1:
        found.append("not one assistant header")
    if family.bos and ids.count(encoder.tokenizer.bos_token_id) != 1:
        found.append("not one BOS")
    if encoder.tokenizer.eos_token_id in ids[len(header_ids(encoder, REQUEST)) :]:
        found.append("an end token after the header")
    return found


def header_of(family):
    """The header without the empty thought behind it."""
    return family.header.split("\n<think>")[0].strip()


def test_the_turn_stays_open(family):
    assert faults(family, open_turn(encoder_of(family), REQUEST, PREFIX)) == []


def test_the_tokens_are_those_of_the_whole_conversation(family):
    encoder = encoder_of(family)
    ids = open_turn(encoder, REQUEST, PREFIX)
    if family.is_string:
        whole = encoder.tokenizer(family.template.replace("{raw_prompt}", REQUEST) + PREFIX + " and more")["input_ids"]
    else:
        whole = encoder.tokenizer(closed(family), add_special_tokens=False)["input_ids"]
        whole = whole if ids[0] == whole[0] else [encoder.tokenizer.bos_token_id, *whole]
    assert whole[: len(ids)] == ids
    assert len(whole) > len(ids) or family.name == "glm4", "GLM-4 has no end token"


@pytest.mark.parametrize("name", ["llama3", "qwen2", "qwen3", "gemma", "phi3", "glm4"])
def test_the_references_way_is_seen_as_no_prefill(name):
    """apply_chat_template with a generation prompt, then `</s>` taken out: the turn is closed and begun anew."""
    family = FAMILIES[name]
    text = closed(family, add_generation_prompt=True).replace("</s>", "")
    ids = encoder_of(family).tokenizer(text, add_special_tokens=False)["input_ids"]
    assert "does not end with the prefix" in faults(family, ids)
    assert "not one assistant header" in faults(family, ids)


@pytest.mark.parametrize("name", CHATS)
def test_the_reinjected_header_is_the_references_way(name):
    family = FAMILIES[name]
    encoder = encoder_of(family)
    ids = open_turn(encoder, REQUEST, PREFIX, turn="reinject_header")
    expected = closed(family, add_generation_prompt=True).replace("</s>", "")
    bos = family.bos if family.adds_bos and not expected.startswith(family.bos) else ""
    thought = family.header.removeprefix(header_of(family))  # empty, so that it answers at once, as everywhere
    read = encoder.tokenizer.decode(ids, skip_special_tokens=False)
    assert re.sub(r"\s+", "", read) == re.sub(r"\s+", "", bos + expected + thought)
    if name not in ("llama2", "mistral"):  # these write no header before an answer
        assert read.rstrip().endswith(header_of(family) + thought.rstrip())


def test_a_string_template_begins_its_header_anew():
    family = FAMILIES["vicuna"]
    ids = open_turn(encoder_of(family), REQUEST, PREFIX, turn="reinject_header")
    text = encoder_of(family).tokenizer.decode(ids, skip_special_tokens=False)
    assert text.endswith(f"ASSISTANT: {PREFIX} ASSISTANT:")


def test_text_of_special_tokens_stays_text(family):
    encoder = encoder_of(family)
    names = [text for text in encoder.tokenizer.added_tokens_encoder if text != "<pad>" and text not in family.plain]
    evil = " ".join(names)
    plain = open_turn(encoder, REQUEST, PREFIX)
    for prompt, prefix in ((f"{evil} {REQUEST}", PREFIX), (REQUEST, f"{PREFIX} {evil} now")):
        ids = open_turn(encoder, prompt, prefix)
        assert controls(encoder, ids) == controls(encoder, plain)
        found, before = (_squeezed(encoder.tokenizer.decode(given)).count(_squeezed(evil)) for given in (ids, plain))
        assert found == before + 1
    cut = cut_answer(encoder, REQUEST, opener=f"Sure {evil}", answer=f"{evil} here are the steps")
    assert controls(encoder, [*cut.opener_ids, *cut.answer_ids]) == []


def test_every_cut_of_an_answer_begins_the_next(family):
    encoder = encoder_of(family)
    answer = "Take some flour, then add two eggs; stir it well: the cake is good."
    cut = cut_answer(encoder, REQUEST, opener="Sure, here are the steps:", answer=answer)
    whole = open_turn(encoder, REQUEST, f"Sure, here are the steps: {answer}")
    assert [*cut.header_ids, *cut.opener_ids, *cut.answer_ids] == whole
    assert cut.header_ids == header_ids(encoder, REQUEST)
    for k in range(len(cut.answer_ids)):
        assert cut.at(k) == whole[: len(cut.header_ids) + len(cut.opener_ids) + k]
    assert encoder.tokenizer.decode(cut.opener_ids).strip() == "Sure, here are the steps:"
    assert encoder.tokenizer.decode(cut.answer_ids).strip() == answer
    with pytest.raises(ValueError, match="at least one must stay unsaid"):
        cut.at(len(cut.answer_ids))


def test_given_tokens_follow_the_header_as_they_are(family):
    encoder = encoder_of(family)
    given = [7, 300, 12]
    ids = open_turn(encoder, REQUEST, given)
    assert ids[-3:] == given
    assert ids[:-3] == header_ids(encoder, REQUEST)


def test_without_a_prefix_it_is_the_prompt(family):
    encoder = encoder_of(family)
    assert open_turn(encoder, REQUEST, " ") == encoder.prompt_ids(REQUEST)


def test_space_around_a_prefix_is_dropped(family):
    encoder = encoder_of(family)
    assert open_turn(encoder, REQUEST, f" {PREFIX}\n") == open_turn(encoder, REQUEST, PREFIX)


def test_a_conversation_goes_on_in_its_last_turn(family):
    encoder = encoder_of(family)
    ids = open_turn(encoder, CONVERSATION, PREFIX)
    text = encoder.tokenizer.decode(ids, skip_special_tokens=False)
    assert text.endswith(PREFIX)
    assert text.count("what now") == 1
    assert text.index("good day, what now") < text.index(REQUEST)
    alone = encoder.tokenizer.decode(open_turn(encoder, REQUEST, PREFIX), skip_special_tokens=False)
    assert text[-len(family.header) - len(PREFIX) :] == alone[-len(family.header) - len(PREFIX) :]


def test_a_prefix_that_would_become_a_control_token_is_refused():
    """A thinking model's marks are ordinary text of other models, and text in its own requests."""
    thinking = encoder_of(FAMILIES["qwen3"])
    for prefix in ("a thought </think> then the answer", "<think> again"):
        with pytest.raises(ValueError, match="a control token of this model"):
            open_turn(thinking, REQUEST, prefix)
        assert open_turn(encoder_of(FAMILIES["qwen2"]), REQUEST, prefix)
    asked = open_turn(thinking, "what does </think> mean", PREFIX)
    assert controls(thinking, asked) == controls(thinking, open_turn(thinking, REQUEST, PREFIX))


def test_a_prompt_does_not_end_with_the_space_before_its_answer():
    """Vicuna's: read alone that space is a token that no answer begins after."""
    encoder = encoder_of(FAMILIES["vicuna"])
    row = encoder.encode(REQUEST, PREFIX)
    assert row.prompt_ids == encoder.prompt_ids(REQUEST) == header_ids(encoder, REQUEST)
    assert encoder.tokenizer.convert_ids_to_tokens(row.response_ids)[0] == "\N{LOWER ONE EIGHTH BLOCK}Sure"
    assert not row.merged


def _squeezed(text):
    return re.sub(r"\s+", "", text)
