"""The record: which pairs an objective makes of a row, and ids that keep everything apart."""

import pytest

from alignlab.data.records import (
    RankedRow,
    Turn,
    as_prompt,
    fill_template,
    messages_of,
    num_unranked,
    pairs_by,
    prompt_as_json,
    ranked_pairs,
)

USER, ANSWER = Turn("user", "hello"), Turn("assistant", "hi")


def row(*scores, prompt="p", **more):
    return RankedRow(prompt, tuple(f"r{index}" for index in range(len(scores))), {"good": scores, **more})


def test_every_pair_of_a_ranking_once_and_the_better_one_first():
    pairs = pairs_by([row(2.0, 3.0, 1.0)], "good")
    assert [(pair.chosen, pair.rejected) for pair in pairs] == [("r0", "r2"), ("r1", "r0"), ("r1", "r2")]
    assert {pair.objective for pair in pairs} == {"good"}
    assert len(pairs_by([row(*map(float, range(6)))], "good")) == 15


def test_ties_and_unknown_scores_make_no_pair():
    assert pairs_by([row(1.0, 1.0), row(None, 1.0), row(None, None)], "good") == []
    assert [pair.chosen for pair in pairs_by([row(1.0, None, 0.0, 1.0)], "good")] == ["r0", "r3"]
    assert num_unranked([row(1.0, 1.0), row(None, 1.0), row(1.0, 0.0)], "good") == 2


def test_an_objective_that_is_missing_says_nothing():
    assert pairs_by([row(1.0, 0.0)], "other") == []
    assert num_unranked([row(1.0, 0.0)], "other") == 1


def test_ids_are_unique_also_where_rows_repeat():
    rows = [
        row(1.0, 0.0),
        row(0.0, 1.0),
        row(1.0, 0.0),
        row(3.0, 2.0, 1.0),
        row(3.0, 2.0, 1.0),
        row(1.0, 0.0, prompt="q"),
    ]
    ids = [pair.id for pair in pairs_by(rows, "good")]
    assert len(set(ids)) == len(ids) == 10


def test_objectives_share_the_id_of_the_same_two_responses():
    ranked = row(3.0, 2.0, 1.0, bad=(1.0, 2.0, 3.0))
    good, bad = pairs_by([ranked], "good"), pairs_by([ranked], "bad")
    assert {pair.id for pair in good} == {pair.id for pair in bad}
    assert {pair.id: pair.chosen for pair in good} == {pair.id: pair.rejected for pair in bad}


def test_pairs_of_one_prompt_share_a_group():
    groups = {pair.group for pair in pairs_by([row(1.0, 0.0), row(2.0, 1.0, 0.0)], "good")}
    assert groups == {row(1.0, 0.0).group} != {row(1.0, 0.0, prompt="q").group}


def test_the_winner_of_two():
    assert row(1.0, 2.0, other=(2.0, 1.0), tied=(1.0, 1.0), unranked=(None, 1.0)).winner == {"good": 1, "other": 0}


def test_a_lone_request_is_one_prompt_in_both_forms():
    assert as_prompt([USER]) == "hello"
    assert as_prompt([USER, ANSWER, USER]) == (USER, ANSWER, USER)
    assert as_prompt([Turn("system", "be kind"), USER]) == (Turn("system", "be kind"), USER)


def test_a_conversation_is_not_the_text_of_its_turns():
    talk = RankedRow((USER, ANSWER, USER), ("x", "y"), {})
    other = RankedRow((USER, Turn("assistant", "hi user"), Turn("user", "hello")), ("x", "y"), {})
    merged = RankedRow((USER,), ("assistant", "hi", "user", "hello", "x", "y"), {})
    assert len({talk.id, other.id, merged.id}) == 3
    assert len({talk.group, other.group}) == 2


def test_pairs_come_in_a_fixed_order():
    assert list(ranked_pairs(row(1.0, 2.0, 3.0), "good")) == [(1, 0), (2, 0), (2, 1)]


TURNS = (Turn("system", "be kind"), Turn("user", "one"), Turn("assistant", "two"), Turn("user", "three"))


def test_prompts_as_files_and_templates_take_them():
    assert prompt_as_json("one") == "one"
    assert messages_of("one") == [{"role": "user", "content": "one"}]
    assert prompt_as_json(TURNS) == messages_of(TURNS)
    assert messages_of(TURNS)[1] == {"role": "user", "content": "one"}


@pytest.mark.parametrize(
    ("template", "filled"),
    [
        ("USER: {raw_prompt} ASSISTANT:", "be kind USER: one ASSISTANT:two USER: three ASSISTANT:"),
        ("Q: {raw_prompt} A:{response}<end>", "be kind Q: one A:two<end> Q: three A:"),
        ("### Q:\n{raw_prompt}\n### A:\n", "be kind\n\n### Q:\none\n### A:\ntwo\n\n### Q:\nthree\n### A:\n"),
        (" {raw_prompt} :", "be kind  one :two three :"),
    ],
)
def test_a_string_template_is_filled_once_a_request(template, filled):
    assert fill_template(template, TURNS) == filled
