"""Columns that change what is asked: read, or refused by name; other columns are named once."""

import json

import pytest

from alignlab.data.records import Turn
from alignlab.data.sources import load, read_ranked_rows
from alignlab.errors import ConfigError

SYSTEM, ONE, TWO, THREE = (
    Turn("system", "be kind"),
    Turn("user", "one"),
    Turn("assistant", "two"),
    Turn("user", "three"),
)
SIDES = {"chosen": "good", "rejected": "bad"}


def message(role, content):
    return {"role": role, "content": content}


def sharegpt(role, content):
    return {"from": role, "value": content}


TALK = [message("user", "one"), message("assistant", "two"), message("user", "three")]
PROMPTS = {
    "system": ({"system": "be kind", "prompt": "one"}, (SYSTEM, ONE)),
    "system_prompt": ({"system_prompt": "be kind", "question": "one"}, (SYSTEM, ONE)),
    "an empty system": ({"system": "", "prompt": "one"}, "one"),
    "question": ({"question": "one"}, "one"),
    "instruction and input": ({"instruction": "one", "input": "two"}, "one\n\ntwo"),
    "instruction alone": ({"instruction": "one", "input": ""}, "one"),
    "history": ({"instruction": "three", "input": "", "history": [["one", "two"]]}, (ONE, TWO, THREE)),
    "history of messages": ({"prompt": "three", "history": TALK[:2]}, (ONE, TWO, THREE)),
    "all of alpaca": (
        {"system": "be kind", "instruction": "three", "history": [["one", "two"]]},
        (SYSTEM, ONE, TWO, THREE),
    ),
    "messages": ({"messages": TALK}, (ONE, TWO, THREE)),
    "messages and system": ({"messages": TALK, "system": "be kind"}, (SYSTEM, ONE, TWO, THREE)),
    "conversations": (
        {"conversations": [sharegpt("human", "one"), sharegpt("gpt", "two"), sharegpt("human", "three")]},
        (ONE, TWO, THREE),
    ),
    "parts": ({"prompt": [message("user", [{"type": "text", "text": "one"}])]}, "one"),
    "HH-RLHF's text": ({"prompt": "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant:"}, (ONE, TWO, THREE)),
    "two systems that say the same": (
        {"system": "be kind", "system_prompt": "be kind ", "prompt": "one"},
        (SYSTEM, ONE),
    ),
    "no tools": ({"prompt": "one", "tools": []}, "one"),
    "a system of nothing to see": ({"prompt": "one", "system": "\u200b\u00a0"}, "one"),
    "input of nothing to see": ({"instruction": "one", "input": "\u2060"}, "one"),
}


@pytest.fixture
def read(dataset_of, tmp_path):
    """The ranked rows of these raw ones."""

    def rows_of(choice, *rows, **changes):
        path = tmp_path / "rows.jsonl"
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
        return load(dataset_of(choice, path=path, **changes))

    return rows_of


@pytest.mark.parametrize("case", PROMPTS)
def test_what_is_asked_is_read(read, case):
    columns, prompt = PROMPTS[case]
    (row,) = read("pairs", {**columns, **SIDES}).rows
    assert row.prompt == prompt
    assert row.responses == ("good", "bad")
    (row,) = read("ranked", {**columns, "responses": ["a", "b"]}).rows
    assert row.prompt == prompt


def test_sharegpt_sides_are_single_messages(read):
    row = {
        "conversations": [sharegpt("human", "one")],
        "chosen": sharegpt("gpt", "a"),
        "rejected": sharegpt("gpt", "b"),
    }
    (found,) = read("pairs", row).rows
    assert (found.prompt, found.responses) == ("one", ("a", "b"))


def whole(*turns):
    return [message(turn.role, turn.content) for turn in turns]


A, B = Turn("assistant", "a"), Turn("assistant", "b")
HANDBOOK = {
    "one turn": ({"prompt": "one"}, (ONE,), "one"),
    "with a system turn": ({"prompt": "one"}, (SYSTEM, ONE), (SYSTEM, ONE)),
    "several turns, the first as prompt": ({"prompt": "one"}, (ONE, TWO, THREE), (ONE, TWO, THREE)),
    "several turns, the last as prompt": ({"prompt": " three\n"}, (ONE, TWO, THREE), (ONE, TWO, THREE)),
    "one turn in another Unicode form": ({"prompt": "one\u200b"}, (ONE,), "one"),
    "all turns as prompt": ({"prompt": TALK}, (ONE, TWO, THREE), (ONE, TWO, THREE)),
    "a system column": ({"prompt": "one", "system": "be kind"}, (ONE,), (SYSTEM, ONE)),
    "a prompt as HH-RLHF has it": ({"prompt": "\n\nHuman: one\n\nAssistant:"}, (ONE,), "one"),
    "one side as messages": ({"prompt": "one", "messages": whole(ONE, A)}, (ONE,), "one"),
    "no prompt": ({}, (ONE, TWO, THREE), (ONE, TWO, THREE)),
    "a prompt that is null": ({"prompt": None}, (ONE, TWO, THREE), (ONE, TWO, THREE)),
}


@pytest.mark.parametrize("case", HANDBOOK)
def test_the_handbooks_layout(read, case):
    columns, turns, prompt = HANDBOOK[case]
    (row,) = read("pairs", {**columns, "chosen": whole(*turns, A), "rejected": whole(*turns, B)}).rows
    assert (row.prompt, row.responses) == (prompt, ("a", "b"))


REFUSED = {
    "tools": ({"prompt": "one", "tools": '[{"name": "f"}]', **SIDES}, "tools: changes what is asked"),
    "context": ({"prompt": "one", "context": "two", **SIDES}, "dataset.ignore=[context] leaves it out"),
    "earlier turns by another name": (
        {"prompt": "one", "chat_history": [["a", "b"]], **SIDES},
        "chat_history: changes",
    ),
    "a system message": ({"prompt": "one", "system_message": "be kind", **SIDES}, "system_message: changes what is"),
    "a capital": ({"prompt": "one", "System": "be kind", **SIDES}, "dataset.ignore=[System] leaves it out"),
    "a prompt with a capital": ({"Prompt": "one", **SIDES}, "rename it to prompt, or dataset.ignore=[Prompt] leaves"),
    "a prompt that is null beside answers": ({"prompt": None, **SIDES}, "prompt: is null"),
    "a turn in two Unicode forms": (
        {"chosen": whole(Turn("user", "a b"), A), "rejected": whole(Turn("user", "a\u00a0b"), B)},
        "rejected: turn 1 differs from chosen's only in Unicode form, Unicode spaces or invisible characters",
    ),
    "an earlier turn of nothing to see": (
        {"messages": [message("user", "\u200b"), *TALK[1:]], **SIDES},
        "prompt: turn 1 (user) holds nothing but zero-width characters",
    ),
    "messages as JSON": ({"prompt": json.dumps(TALK), **SIDES}, "prompt: is text that holds messages; write them as"),
    "messages as Python prints them": (
        {"prompt": "one", **SIDES, "rejected": str(TALK)},
        "rejected: is text that holds",
    ),
    "ShareGPT's as JSON": (
        {"prompt": "one", **SIDES, "chosen": json.dumps([sharegpt("gpt", "a")])},
        "chosen: is text that holds messages",
    ),
    "a conversation as text": ({"conversations": "user: one", **SIDES}, "conversations: must be a list, is text"),
    "passages": ({"prompt": "one", "contexts": ["two"], **SIDES}, "dataset.ignore=[contexts] leaves it out"),
    "two system columns": (
        {"system": "be kind", "system_prompt": "be rude", "prompt": "one", **SIDES},
        "system_prompt: differs from system; dataset.ignore=[system_prompt]",
    ),
    "the answer to a call": (
        {"messages": [{**message("user", "a"), "tool_call_id": "1"}], **SIDES},
        "messages.0.tool_call_id: is part of the turn and is not read",
    ),
    "a sound": ({"messages": [{**message("user", "a"), "audio": "x.wav"}], **SIDES}, "messages.0.audio: is part of"),
    "line ends": (
        {"chosen": whole(Turn("user", "a\r\nb"), A), "rejected": whole(Turn("user", "a\nb"), B)},
        "rejected: turn 1 differs from chosen's only in",
    ),
    "two requests": ({"prompt": "one", "question": "two", **SIDES}, "question: and prompt both hold a request"),
    "input beside prompt": ({"prompt": "one", "input": "two", **SIDES}, "input: and prompt both hold a request"),
    "two systems": (
        {"messages": whole(SYSTEM, ONE), "system": "be rude", **SIDES},
        "system: differs from the system turn",
    ),
    "a tool's turn": ({"messages": [message("tool", "x"), *TALK], **SIDES}, "messages.0.role: is 'tool'"),
    "a call": (
        {"messages": [message("user", "a"), {**message("assistant", "b"), "tool_calls": [1]}, *TALK], **SIDES},
        "messages.1.tool_calls: is part of the turn and is not read",
    ),
    "an image": ({"prompt": [message("user", [{"type": "image"}])], **SIDES}, "content.0: must be a part of type text"),
    "another prompt": (
        {"prompt": "two", "chosen": whole(ONE, A), "rejected": whole(ONE, B)},
        "prompt: is not what the conversations ask",
    ),
    "messages of another talk": (
        {"prompt": "one", "messages": whole(THREE, A), "chosen": whole(ONE, A), "rejected": whole(ONE, B)},
        "messages: and prompt both hold a request",
    ),
    "history beside turns": ({"messages": TALK, "history": [["a", "b"]], **SIDES}, "history: stands beside the turns"),
    "a text and a message": ({"prompt": "one", "chosen": "a", "rejected": whole(A)}, "must be of the same form"),
    "the prompt twice": (
        {"prompt": "tell me of the sea", "chosen": "tell me of the sea. a", "rejected": "tell me of the sea. b"},
        "chosen: begins with the prompt, as rejected does",
    ),
}


@pytest.mark.parametrize("case", REFUSED)
def test_what_is_not_read_is_refused_by_name(read, case):
    row, said = REFUSED[case]
    with pytest.raises(ConfigError) as refused:
        read("pairs", row)
    assert said in str(refused.value)
    assert str(refused.value).startswith("rows.jsonl:1 ")


def test_json_that_holds_no_messages_is_text(read):
    for text in (
        '["red", "blue"]',
        '[{"name": "red"}]',
        '{"role": "Hamlet", "content": "to be"}',
        "[see below] {role}",
    ):
        (row,) = read("pairs", {"prompt": "one", **SIDES, "chosen": text}).rows
        assert row.responses == (text, "bad")


def test_whole_conversations_of_hh_beside_a_prompt(read):
    sides = {"chosen": "\n\nHuman: one\n\nAssistant: a", "rejected": "\n\nHuman: one\n\nAssistant: b"}
    (row,) = read("pairs", {"prompt": "one", **sides}).rows
    assert (row.prompt, row.responses) == ("one", ("a", "b"))
    with pytest.raises(ConfigError, match="prompt: is not what the conversations ask"):
        read("pairs", {"prompt": "two", **sides})


def test_an_ignored_column_that_no_row_has_is_refused(read):
    rows = [{"prompt": f"p{number}", **SIDES} for number in range(150)]
    with pytest.raises(ConfigError, match=r"dataset\.ignore=\[tool\]: no row has such a column; choose one of chosen"):
        read("pairs", *rows, ignore=["tool"])
    rows[140]["tools"] = "f"
    assert len(read("pairs", *rows, ignore=["tools"]).rows) == 150


def test_prompts_that_a_template_has_written_are_said(read):
    written = "<|im_start|>user\none<|im_end|>\n<|im_start|>assistant\n"
    report = read("pairs", {"prompt": written, **SIDES}, {"prompt": "is a<|b a token?", **SIDES}).report
    (line,) = report.notices()
    assert "1 prompts that hold a chat template's own tokens, which are read as text" in line


def test_a_column_can_be_ignored(read):
    row = {"prompt": "one", "tools": "f", "question": "two", **SIDES}
    (found,) = read("pairs", row, ignore=["tools", "question"]).rows
    assert found.prompt == "one"


@pytest.mark.parametrize(
    "choice", ["shp", "stack_exchange_paired", "ultrafeedback", "helpsteer", "beavertails", "hh_rlhf"]
)
def test_no_known_set_drops_a_system_turn(read, choice, dataset_of):
    from alignlab.data.readers import SOURCES

    needed = SOURCES[choice].columns(dataset_of(choice))
    with pytest.raises(ConfigError, match=r"system: changes what is asked"):
        read(choice, {**dict.fromkeys(needed, "x"), "system": "be kind"})


def test_a_system_turn_beside_pku_columns(read):
    row = {"prompt": "one", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    (found,) = read("pku_saferlhf", {**row, "system": "be kind"}).rows
    assert found.prompt == (SYSTEM, ONE)
    assert read("pku_saferlhf", row).rows[0].prompt == "one"


TEXTS = {
    "HH": ("\n\nHuman: one\n\nAssistant: a b", "\n\nHuman: one\n\nAssistant: a c", "one", ("a b", "a c")),
    "HH, several turns": (
        "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: a",
        "\n\nHuman: one\n\nAssistant: two\n\nHuman: three\n\nAssistant: b",
        (ONE, TWO, THREE),
        ("a", "b"),
    ),
    "Q and A": ("Q: hello A: the red one", "Q: hello A: the rest", "Q: hello A:", (" the red one", " the rest")),
    "ChatML": (
        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nthe a",
        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\nthe b",
        "<|im_start|>user\nx<|im_end|>\n<|im_start|>assistant\n",
        ("the a", "the b"),
    ),
    "Llama 2": ("[INST] x [/INST] the a", "[INST] x [/INST] the b", "[INST] x [/INST]", (" the a", " the b")),
    "Alpaca": ("### Instruction:\nx\n### Response:\na", "### Instruction:\nx\n### Response:\nb", None, ("a", "b")),
}


@pytest.mark.parametrize("case", TEXTS)
def test_an_inferred_prompt_ends_at_a_turn(read, case):
    chosen, rejected, prompt, answers = TEXTS[case]
    (row,) = read("pairs", {"chosen": chosen, "rejected": rejected}).rows
    assert row.responses == answers
    assert row.prompt == (prompt or "### Instruction:\nx\n### Response:\n")


@pytest.mark.parametrize(
    ("chosen", "rejected", "said"),
    [
        ("The sky is blue today", "The sky is green", "does not begin as chosen does up to the end of a turn"),
        ("As for A: yes it is", "As for A: no it is not", "does not begin as chosen does up to the end of a turn"),
        ("Q: what is A", "Q: what is B", "does not begin as chosen does up to the end of a turn"),
        ("Yes", "No", "rejected: does not begin as chosen does, so there is no prompt; give a column prompt"),
        ("Q: a A: b Q: c A: d", "Q: a A: x Q: c A: d", "chosen: goes on with another turn of the assistant"),
    ],
)
def test_a_prompt_is_never_cut_inside_a_sentence(read, chosen, rejected, said):
    with pytest.raises(ConfigError) as refused:
        read("pairs", {"chosen": chosen, "rejected": rejected})
    assert said in str(refused.value)


def test_unknown_columns_are_named_once_with_what_was_read(read):
    rows = [{"prompt": f"p{number}", **SIDES, "source": "x", "score_chosen": 1.0} for number in range(3)]
    report = read("pairs", *rows).report
    (line,) = report.notices()
    assert line.endswith("rows.jsonl: reads prompt, chosen, rejected; does not read source, score_chosen")
    assert report.as_record()["unread"] == ["source", "score_chosen"]


def test_published_columns_are_not_named(read):
    row = {"prompt": "one", "response_0": "a", "response_1": "b", "better_response_id": 0, "safer_response_id": 1}
    assert read("pku_saferlhf", {**row, "prompt_source": "x", "response_0_sha256": "y"}).report.notices() == []
    assert read("pku_saferlhf", {**row, "mine": "x"}).report.notices() != []


def test_a_late_column_is_refused_too(read):
    """The names of the first hundred rows are not those of all."""
    rows = [{"prompt": f"p{number}", **SIDES} for number in range(150)]
    rows[140]["tools"] = "f"
    with pytest.raises(ConfigError, match=r"rows\.jsonl:141 tools: changes what is asked"):
        read("pairs", *rows)


def test_parquet_reads_the_same(dataset_of, file_of):
    rows = [{"system": "be kind", "messages": TALK, **SIDES}, {"system": None, "messages": TALK[:1], **SIDES}]
    found = read_ranked_rows(dataset_of("pairs", path=file_of(rows)))
    assert [row.prompt for row in found] == [(SYSTEM, ONE, TWO, THREE), "one"]
