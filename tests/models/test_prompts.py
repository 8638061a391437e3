from dataclasses import replace

import pytest

from alignlab.data.records import CutText, Turn
from alignlab.models.prompts import PromptEncoder
from alignlab.models.scratch import bpe_tokenizer, word_tokenizer

TEXTS = ["USER: where is the red box ASSISTANT: on the table", "USER: hello there ASSISTANT: hello you"]


@pytest.fixture
def bpe():
    return bpe_tokenizer(TEXTS, 400)


def test_one_bos_one_eos_and_the_text_comes_back(bpe):
    encoder = PromptEncoder(bpe, "USER: {raw_prompt} ASSISTANT:")
    row = encoder.encode("where is it", " on the table")
    ids = row.prompt_ids + row.response_ids
    assert ids.count(bpe.bos_token_id) == 1
    assert ids[0] == bpe.bos_token_id
    assert ids.count(bpe.eos_token_id) == 1
    assert ids[-1] == bpe.eos_token_id
    assert bpe.decode(ids[1:-1]) == "USER: where is it ASSISTANT: on the table"
    assert row.prompt_ids == encoder.prompt_ids("where is it")


def test_special_token_text_in_data_stays_text(bpe):
    encoder = PromptEncoder(bpe, "USER: {raw_prompt} ASSISTANT:")
    row = encoder.encode("say <eos> now", " <bos> done<eos>")
    ids = row.prompt_ids + row.response_ids
    assert ids.count(bpe.bos_token_id) == 1
    assert ids.count(bpe.eos_token_id) == 1
    assert "<eos> now" in bpe.decode(row.prompt_ids)


def test_a_token_across_the_boundary_is_counted():
    tokenizer = bpe_tokenizer(["ab ab ab ab ab ab"], 300)
    encoder = PromptEncoder(tokenizer, "{raw_prompt}")
    row = encoder.encode("a", "b")
    assert row.merged
    assert not encoder.encode("a", " b").merged
    assert tokenizer.decode((row.prompt_ids + row.response_ids)[1:-1]) == "ab"


def test_an_empty_response_is_its_end(bpe):
    encoder = PromptEncoder(bpe, "USER: {raw_prompt} ASSISTANT:")
    assert encoder.encode("hello", "").response_ids == [bpe.eos_token_id]


def test_a_response_that_was_cut_has_no_end(bpe):
    """Whichever of the two is read first: texts are kept."""
    texts = [("hello", "you"), ("hello", CutText("you"))]
    for order in (texts, texts[::-1]):
        rows = dict(zip(order, PromptEncoder(bpe, "USER: {raw_prompt} ASSISTANT:").encode_all(order), strict=True))
        assert rows[texts[0]].response_ids == [*rows[texts[1]].response_ids, bpe.eos_token_id]


def test_tokens_tell_whether_a_response_was_cut(bpe):
    encoder = PromptEncoder(bpe, "USER: {raw_prompt} ASSISTANT:")
    row = encoder.encode("hello", "you")
    whole = row.response_ids
    assert encoder.said(row) == "you"
    assert not isinstance(encoder.said(row), CutText)
    assert encoder.said(replace(row, response_ids=whole[:-1])) == CutText("you")
    assert encoder.has_ended([*whole[:-1], bpe.pad_token_id]), "a model may list other special tokens that end a turn"
    assert not any(map(encoder.has_ended, ([], [*whole[:-1], bpe.unk_token_id])))


def test_words_round_trip():
    tokenizer = word_tokenizer(["now", "turn", "the", "user:", "assistant:"])
    encoder = PromptEncoder(tokenizer, "user: {raw_prompt} assistant: ")
    row = encoder.encode("turn the", "now now")
    assert encoder.response_text(row) == "now now"


def test_no_template_is_refused(bpe):
    with pytest.raises(ValueError, match="chat template"):
        PromptEncoder(bpe, None)


TALK = (Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))


@pytest.mark.parametrize(
    ("template", "text"),
    [
        ("USER: {raw_prompt} ASSISTANT:", "USER: one ASSISTANT:two USER: three ASSISTANT:"),
        (
            "\n\nHuman: {raw_prompt}\n\nAssistant: ",
            "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:",
        ),
        ("### {raw_prompt}\n", "### one\ntwo\n\n### three\n"),
    ],
)
def test_a_conversation_by_a_string_template(bpe, template, text):
    assert bpe.decode(PromptEncoder(bpe, template).prompt_ids(TALK)[1:]) == text


def test_a_lone_turn_is_the_request_itself(bpe):
    encoder = PromptEncoder(bpe, "USER: {raw_prompt} ASSISTANT:")
    assert encoder.prompt_ids((Turn("user", "hello"),)) == encoder.prompt_ids("hello")


@pytest.mark.parametrize("template", ["USER: {raw_prompt} ASSISTANT:", "USER: {raw_prompt} ASSISTANT: "])
@pytest.mark.parametrize("response", [" on the table ", "on\n", "\n\nhello"])
def test_a_response_comes_back_with_its_own_white_space(bpe, template, response):
    encoder = PromptEncoder(bpe, template)
    row = encoder.encode("where is it", response)
    assert encoder.response_text(row) == response
    cut = encoder.encode("where is it", CutText(response))
    assert encoder.said(cut) == CutText(response)
