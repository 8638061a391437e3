"""From rows in a file to ranked rows, and to splits that share no prompt."""

import json
import random

import pytest

from alignlab.data import sources
from alignlab.data.records import Turn, pairs_by
from alignlab.data.sources import check_source, load, made_rows, read_ranked_rows, select_split
from alignlab.data.splits import split_of
from alignlab.errors import ConfigError
from alignlab.io.hashes import text_id

ROW = {"prompt": "p", "response_0": "x", "response_1": "y", "better_response_id": 0, "safer_response_id": 1}


@pytest.fixture
def dataset(dataset_of):
    return lambda path, **changes: dataset_of(
        "pku_saferlhf", path=path, **{"test_share": 0.3, "split": None, **changes}
    )


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def many_rows(count=400, prompts=150):
    """Rows with repeated prompts, some of which differ only in case and spacing."""
    rng = random.Random(0)
    spelled = [lambda text: text, str.upper, lambda text: f"  {text}  ", lambda text: text.replace(" ", "   ")]
    return [
        {**ROW, "prompt": rng.choice(spelled)(f"request number {rng.randrange(prompts)}"), "response_0": f"x{index}"}
        for index in range(count)
    ]


def key(row):
    return " ".join(row.prompt.split()).casefold()


def test_rows_keep_their_order_and_labels(dataset, tmp_path):
    rows = read_ranked_rows(dataset(write(tmp_path / "a.jsonl", [ROW, {**ROW, "prompt": "q", "safer_response_id": 0}])))
    assert [row.prompt for row in rows] == ["p", "q"]
    assert [row.winner for row in rows] == [{"better": 0, "safer": 1}, {"better": 0, "safer": 0}]


def test_chosen_is_the_winner_by_each_objective(dataset, tmp_path):
    rows = read_ranked_rows(dataset(write(tmp_path / "a.jsonl", [ROW])))
    (better,), (safer,) = pairs_by(rows, "better"), pairs_by(rows, "safer")
    assert (better.chosen, better.rejected) == ("x", "y")
    assert (safer.chosen, safer.rejected) == ("y", "x")
    assert (better.id, better.group) == (safer.id, safer.group)


def test_rows_know_their_place_and_are_read_once(dataset, tmp_path):
    config = dataset(write(tmp_path / "a.jsonl", [ROW, {**ROW, "prompt": "q"}]))
    rows = read_ranked_rows(config)
    assert [row.location for row in rows] == ["a.jsonl:1", "a.jsonl:2"]
    assert read_ranked_rows(config) is rows
    write(tmp_path / "a.jsonl", [{**ROW, "prompt": "another"}])
    assert [row.prompt for row in read_ranked_rows(config)] == ["another"], "a changed file is read again"


def test_another_objective_is_another_reading(dataset_of, tmp_path):
    path = write(tmp_path / "a.jsonl", [ROW])
    for use in (["safer"], ["better"], ["safer", "better"]):
        (row,) = load(dataset_of("pku_saferlhf", path=path, use=use)).rows
        assert list(row.scores) == use


def test_no_rows_are_refused(dataset, tmp_path):
    config = dataset(write(tmp_path / "a.jsonl", []))
    for read in (check_source, read_ranked_rows):
        with pytest.raises(ConfigError, match="holds no rows"):
            read(config)


def test_a_split_without_rows_is_refused(dataset, tmp_path):
    path = write(tmp_path / "a.jsonl", [ROW])
    splits = {split: _refusal(dataset(path, split=split)) for split in ("train", "test")}
    assert sorted(splits.values(), key=str) == [None, splits[next(name for name in splits if splits[name])]]
    assert "holds none of 1 rows" in next(filter(None, splits.values()))


def _refusal(config):
    try:
        check_source(config)
    except ConfigError as refused:
        return str(refused)
    return None


def split_both(rows, config):
    return [select_split(rows, config, split) for split in ("train", "test")]


def test_no_prompt_is_in_two_splits(dataset, tmp_path):
    config = dataset(write(tmp_path / "a.jsonl", many_rows()))
    rows = read_ranked_rows(config)
    train, test = split_both(rows, config)
    assert len(train) + len(test) == len(rows)
    assert {key(row) for row in train}.isdisjoint({key(row) for row in test})
    assert 0.15 < len(test) / len(rows) < 0.45


def test_splitting_by_row_would_share_prompts(dataset, tmp_path):
    """The control: the same check fails on a split that ignores prompts."""
    rows = read_ranked_rows(dataset(write(tmp_path / "a.jsonl", many_rows())))
    train, test = rows[::2], rows[1::2]
    assert not {key(row) for row in train}.isdisjoint({key(row) for row in test})


def test_the_split_does_not_depend_on_the_order_of_the_rows(dataset, tmp_path):
    rows = many_rows()
    forward = dataset(write(tmp_path / "forward.jsonl", rows))
    backward = dataset(write(tmp_path / "backward.jsonl", rows[::-1]))
    for one, other in zip(
        split_both(read_ranked_rows(forward), forward), split_both(read_ranked_rows(backward), backward), strict=True
    ):
        assert {row.id for row in one} == {row.id for row in other}


def test_a_row_more_moves_no_other(dataset, tmp_path):
    rows = many_rows()
    before, after = (dataset(write(tmp_path / f"{count}.jsonl", rows[:count])) for count in (200, 400))
    for fewer, more in zip(
        split_both(read_ranked_rows(before), before), split_both(read_ranked_rows(after), after), strict=True
    ):
        assert {row.id for row in fewer} <= {row.id for row in more}


def test_all_rows_and_at_most_so_many(dataset, tmp_path):
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


def test_sampled_rows_are_read_once_while_their_file_and_settings_stay(dataset, tmp_path, monkeypatch):
    path = write(tmp_path / "pairs.jsonl", [ROW, ROW])
    real, calls = sources.read_rows, []
    monkeypatch.setattr(sources, "read_rows", lambda *given: calls.append(given) or real(*given))
    first = made_rows(dataset(path), path)
    assert len(first) == 2, "sampled rows may repeat"
    assert made_rows(dataset(path, split="train"), path) is first
    assert len(calls) == 1
    write(path, [ROW, {**ROW, "prompt": "another"}, ROW])
    assert [row.prompt for row in made_rows(dataset(path), path)] == ["p", "another", "p"]
    flipped = dataset(path)
    flipped.objectives = {"better": flipped.objectives["better"]}
    assert [*made_rows(flipped, path)[0].scores] == ["better"], "other settings are read anew"
