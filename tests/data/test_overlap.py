"""Prompts that are held out are not trained on: in files of their own, in other splits, and near duplicates."""

import json

import pytest

from alignlab.data.overlap import check_overlap
from alignlab.data.records import Turn
from alignlab.data.sources import load, load_prompts, splitter
from alignlab.errors import ConfigError

HELD_OUT = ["How do I fold a map of the old town?", "name the tallest tree of this forest"]
COPY = "how do I fold a map of the old town"
NEAR = "How do I fold a map of the old town please?"


def test_equal_prompts_are_found_whatever_their_spelling():
    assert check_overlap([COPY, "other", NEAR], HELD_OUT) == [0, None, None]
    talk = (Turn("user", "a"), Turn("assistant", "b"), Turn("user", "c?"))
    assert check_overlap([talk, "c"], [(*talk[:2], Turn("user", "C"))]) == [0, None]


def test_near_duplicates_are_found_where_that_is_asked_for():
    assert check_overlap([COPY, "other", NEAR], HELD_OUT, near_duplicates=0.6) == [0, None, 0]
    assert check_overlap([NEAR], HELD_OUT, near_duplicates=1.0) == [None]
    assert check_overlap([NEAR], [], near_duplicates=0.5) == [None]


def write(path, rows):
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def pair(prompt):
    return {"prompt": prompt, "chosen": "a", "rejected": "b"}


@pytest.fixture
def rows(tmp_path):
    prompts = [COPY, *(f"request number {number}" for number in range(20))]
    return write(tmp_path / "rows.jsonl", map(pair, prompts))


@pytest.mark.parametrize("column", ["prompt", "question", "Goal", "instruction"])
def test_training_rows_of_a_named_file_are_refused_or_dropped(dataset_of, rows, tmp_path, column):
    named = write(tmp_path / "eval.jsonl", [{column: text} for text in HELD_OUT])
    config = dataset_of("pairs", path=rows, split=None, held_out=[str(named)])
    with pytest.raises(ConfigError, match=r"rows\.jsonl:1 prompt: is held out: it is that of eval\.jsonl:1 \("):
        load(config)
    dropped = load(dataset_of("pairs", path=rows, split=None, held_out=[str(named)], overlap="drop"))
    assert len(dropped.rows) == 20
    assert dropped.as_record()["bad"] == {"overlap": 1}
    assert len(load(dataset_of("pairs", path=rows, split=None)).rows) == 21, "without held_out it is a row like others"


def test_held_out_rows_may_be_in_that_file(dataset_of, rows, tmp_path):
    """An evaluation file may be this set's own test split."""
    config = dataset_of("pairs", path=rows, test_share=0.4)
    tests = load_prompts(config)["test"]
    named = write(tmp_path / "eval.jsonl", [{"prompt": text} for text in tests])
    assert len(load(dataset_of("pairs", path=rows, test_share=0.4, held_out=[str(named)])).rows) == 21


def test_near_duplicates_across_the_own_split(dataset_of, tmp_path):
    words = "abcdefghijklmnopqrstuvwxyz"
    base = [" ".join(f"{letter}{word}" for word in range(12)) for letter in words]
    path = write(tmp_path / "rows.jsonl", [pair(text) for text in base] + [pair(f"{text} again") for text in base])
    config = dataset_of("pairs", path=path, test_share=0.5, near_duplicates=0.8, overlap="drop")
    plain = load(dataset_of("pairs", path=path, test_share=0.5)).rows
    kept = load(config)
    split_of_row = splitter(plain, config)
    test = {row.prompt.removesuffix(" again") for row in plain if split_of_row(row) == "test"}
    crossing = [row for row in plain if split_of_row(row) == "train" and row.prompt.removesuffix(" again") in test]
    assert crossing, "the control: some near copies are in both splits"
    assert kept.report.bad["overlap"] == len(crossing)
    assert {row.prompt for row in kept.rows} == {row.prompt for row in plain} - {row.prompt for row in crossing}


def test_a_file_without_prompts_is_refused(dataset_of, rows, tmp_path):
    named = write(tmp_path / "eval.jsonl", [{"answer": "x"}])
    with pytest.raises(ConfigError, match=r"dataset\.held_out=.*eval\.jsonl:1 prompt: is missing; a prompt is"):
        load(dataset_of("pairs", path=rows, held_out=[str(named)]))
    with pytest.raises(ConfigError, match=r"dataset\.held_out=.*nowhere\.jsonl: does not exist"):
        load(dataset_of("pairs", path=rows, held_out=[str(tmp_path / "nowhere.jsonl")]))
