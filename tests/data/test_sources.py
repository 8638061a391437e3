"""From rows in a file to ranked rows, and to splits that share no prompt."""

import json
import random

import pytest

from alignlab.config.errors import ConfigError
from alignlab.config.schema import FileConfig, ObjectiveConfig
from alignlab.data.records import Turn, pairs_by, text_id
from alignlab.data.sources import NUM_ROWS_LOOKED_AT, check_source, read_ranked_rows, select_split
from alignlab.data.splits import split_of

ROW = {"prompt": "p", "response_0": "x", "response_1": "y", "better_response_id": 0, "safer_response_id": 1}


def dataset(path, **changes):
    settings = {
        "kind": "pku_saferlhf",
        "name": "pku_saferlhf",
        "objectives": {
            "better": ObjectiveConfig(label="better_response_id"),
            "safer": ObjectiveConfig(label="safer_response_id"),
        },
        "split": "train",
        "test_share": 0.3,
        "max_rows": None,
        "beta": 0.1,
        "path": str(path),
        "hub": None,
        "revision": None,
    }
    return FileConfig(**{**settings, **changes})


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def many_rows(count=400, prompts=150):
    """Rows with repeated prompts, some of which differ only in case and spacing."""
    rng = random.Random(0)
    spelled = [lambda text: text, str.upper, lambda text: f"  {text}  ", lambda text: text.replace(" ", "   ")]
    return [
        {**ROW, "prompt": rng.choice(spelled)(f"request number {rng.randrange(prompts)}"), "response_0": f"x{place}"}
        for place in range(count)
    ]


def key(row):
    return " ".join(row.prompt.split()).casefold()


def test_rows_keep_their_order_and_labels(tmp_path):
    rows = read_ranked_rows(dataset(write(tmp_path / "a.jsonl", [ROW, {**ROW, "prompt": "q", "safer_response_id": 0}])))
    assert [row.prompt for row in rows] == ["p", "q"]
    assert [row.winner for row in rows] == [{"better": 0, "safer": 1}, {"better": 0, "safer": 0}]


def test_chosen_is_the_winner_by_each_objective(tmp_path):
    rows = read_ranked_rows(dataset(write(tmp_path / "a.jsonl", [ROW])))
    (better,), (safer,) = pairs_by(rows, "better"), pairs_by(rows, "safer")
    assert (better.chosen, better.rejected) == ("x", "y")
    assert (safer.chosen, safer.rejected) == ("y", "x")
    assert (better.id, better.group) == (safer.id, safer.group)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"prompt": None}, "a.jsonl:2 prompt: must be text, is NoneType"),
        ({"response_1": 3}, "a.jsonl:2 response_1: must be text, is int"),
        ({"better_response_id": 2}, "a.jsonl:2 better_response_id: must be 0 or 1, is 2"),
        ({"safer_response_id": None}, "a.jsonl:2 safer_response_id: must be 0 or 1, is None"),
        ({"safer_response_id": True}, "must be 0 or 1, is True"),
        ({"safer_response_id": "1"}, "must be 0 or 1, is '1'"),
    ],
)
def test_a_bad_row_is_named_by_file_line_and_column(tmp_path, changes, said):
    config = dataset(write(tmp_path / "a.jsonl", [ROW, {**ROW, **changes}]))
    for read in (check_source, read_ranked_rows):
        with pytest.raises(ConfigError) as refused:
            read(config)
        assert said in str(refused.value)


def test_the_first_look_is_short_and_the_reading_is_not(tmp_path):
    config = dataset(write(tmp_path / "a.jsonl", [ROW] * NUM_ROWS_LOOKED_AT + [{**ROW, "prompt": None}]))
    check_source(config)
    with pytest.raises(ConfigError, match=f"a.jsonl:{NUM_ROWS_LOOKED_AT + 1} prompt"):
        read_ranked_rows(config)


def test_a_missing_column_is_named(tmp_path):
    lacking = {key: value for key, value in ROW.items() if key != "safer_response_id"}
    with pytest.raises(ConfigError, match=r"a.jsonl: lacks the column 'safer_response_id'"):
        check_source(dataset(write(tmp_path / "a.jsonl", [lacking])))


def test_no_rows_are_refused(tmp_path):
    config = dataset(write(tmp_path / "a.jsonl", []))
    for read in (check_source, read_ranked_rows):
        with pytest.raises(ConfigError, match="holds no rows"):
            read(config)


def split_both(rows, config):
    return [select_split(rows, config, split) for split in ("train", "test")]


def test_no_prompt_is_in_two_splits(tmp_path):
    config = dataset(write(tmp_path / "a.jsonl", many_rows()))
    rows = read_ranked_rows(config)
    train, test = split_both(rows, config)
    assert len(train) + len(test) == len(rows)
    assert {key(row) for row in train}.isdisjoint({key(row) for row in test})
    assert 0.15 < len(test) / len(rows) < 0.45


def test_splitting_by_row_would_share_prompts(tmp_path):
    """The control: the same check fails on a split that ignores prompts."""
    rows = read_ranked_rows(dataset(write(tmp_path / "a.jsonl", many_rows())))
    train, test = rows[::2], rows[1::2]
    assert not {key(row) for row in train}.isdisjoint({key(row) for row in test})


def test_the_split_does_not_depend_on_the_order_of_the_rows(tmp_path):
    rows = many_rows()
    forward = dataset(write(tmp_path / "forward.jsonl", rows))
    backward = dataset(write(tmp_path / "backward.jsonl", rows[::-1]))
    for one, other in zip(
        split_both(read_ranked_rows(forward), forward), split_both(read_ranked_rows(backward), backward), strict=True
    ):
        assert {row.id for row in one} == {row.id for row in other}


def test_a_row_more_moves_no_other(tmp_path):
    rows = many_rows()
    before, after = (dataset(write(tmp_path / f"{count}.jsonl", rows[:count])) for count in (200, 400))
    for fewer, more in zip(
        split_both(read_ranked_rows(before), before), split_both(read_ranked_rows(after), after), strict=True
    ):
        assert {row.id for row in fewer} <= {row.id for row in more}


def test_all_rows_and_at_most_so_many(tmp_path):
    path = write(tmp_path / "a.jsonl", many_rows())
    rows = read_ranked_rows(dataset(path))
    assert select_split(rows, dataset(path), None) == rows
    assert select_split(rows, dataset(path, max_rows=7), None) == rows[:7]


def test_the_share_is_kept_and_the_salt_counts():
    prompts = [f"request {number}" for number in range(4000)]
    plain = [split_of(prompt, 0.1) for prompt in prompts]
    assert plain.count("test") / len(plain) == pytest.approx(0.1, abs=0.02)
    assert plain != [split_of(prompt, 0.1, salt="other") for prompt in prompts]
    assert {prompt for prompt in prompts if split_of(prompt, 0.1) == "test"} <= {
        prompt for prompt in prompts if split_of(prompt, 0.2) == "test"
    }


def test_ids_keep_texts_apart():
    assert text_id("ab", "c") != text_id("a", "bc")
    assert text_id("ab", "c") == text_id("ab", "c")


def test_a_conversation_falls_where_its_first_request_does():
    prompts = [f"request number {number}" for number in range(60)]
    talks = [(Turn("user", text), Turn("assistant", "yes"), Turn("user", "and then")) for text in prompts]
    assert [split_of(talk, 0.5) for talk in talks] == [split_of(text, 0.5) for text in prompts]


def test_unicode_forms_are_one_prompt():
    assert {split_of(text, 0.5) for text in ("caf\u00e9 au lait", "cafe\u0301 AU\u00a0lait")} == {
        split_of("CAF\u00c9 au lait", 0.5)
    }
    forms = [[f"{letter} {number}" for number in range(80)] for letter in ("\u00e9", "e\u0301")]
    assert [split_of(text, 0.5) for text in forms[0]] == [split_of(text, 0.5) for text in forms[1]]
