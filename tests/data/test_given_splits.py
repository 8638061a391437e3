"""Folders whose files say which split their rows belong to; prompts that are in two of them."""

import gzip
import json
import random

import pytest

from alignlab.data.sources import check_source, load, read_ranked_rows, select_split
from alignlab.errors import ConfigError


def row(prompt, answer="x"):
    return {"prompt": prompt, "chosen": f"good {answer}", "rejected": f"bad {answer}"}


@pytest.fixture
def folder(tmp_path):
    """Writes {"train.jsonl": prompts, ...} into a folder."""

    def write(files):
        for name, prompts in files.items():
            path = tmp_path / "set" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            lines = "".join(json.dumps(row(prompt)) + "\n" for prompt in prompts).encode()
            path.write_bytes(gzip.compress(lines) if name.endswith(".gz") else lines)
        return tmp_path / "set"

    return write


def prompts_of(config, split):
    return [found.prompt for found in select_split(read_ranked_rows(config), config, split)]


LAYOUTS = [
    {"train.jsonl": "ab", "test.jsonl": "cd"},
    {"train-00000-of-00002.jsonl": "a", "train-00001-of-00002.jsonl": "b", "test-00000-of-00001.jsonl": "cd"},
    {"data/train/0.jsonl": "ab", "data/test/0.jsonl": "cd"},
    {"train.jsonl.gz": "ab", "test.jsonl.gz": "cd"},
    {"train.jsonl": "ab", "validation.jsonl": "cd"},
    {"train.jsonl": "ab", "dev.jsonl": "cd", "dataset_infos.json": "x"},
]


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: " ".join(layout))
def test_files_and_folders_name_their_split(dataset_of, folder, layout):
    config = dataset_of("pairs", path=folder(layout))
    assert prompts_of(config, "train") == ["a", "b"]
    assert prompts_of(config, "test") == ["c", "d"]
    assert prompts_of(config, None) in (["a", "b", "c", "d"], ["c", "d", "a", "b"])


def test_validation_is_a_split_of_its_own_beside_test(dataset_of, folder):
    path = folder({"train.jsonl": "ab", "validation.jsonl": "c", "test.jsonl": "d"})
    config = dataset_of("pairs", path=path, split="validation")
    assert [prompts_of(config, split) for split in ("train", "dev", "test")] == [["a", "b"], ["c"], ["d"]]
    check_source(config)


def test_files_of_one_split_are_split_by_prompt(dataset_of, folder):
    prompts = [f"request {number}" for number in range(200)]
    config = dataset_of("pairs", path=folder({"train-0.jsonl": prompts[:100], "train-1.jsonl": prompts[100:]}))
    assert 0 < len(prompts_of(config, "test")) < 50


def test_a_file_that_names_no_split_among_those_that_do_is_refused(dataset_of, folder):
    path = folder({"train.jsonl": "a", "test.jsonl": "b", "more.jsonl": "c"})
    with pytest.raises(ConfigError, match=r"more\.jsonl names no split, but other files do"):
        load(dataset_of("pairs", path=path))


@pytest.mark.parametrize("twin", ["same words", "SAME  Words ", "\uff53\uff41\uff4d\uff45 words"])
def test_a_planted_overlap_is_caught_and_both_places_are_named(dataset_of, folder, twin):
    path = folder({"train.jsonl": ["a", twin, "b"], "test.jsonl": ["c", "same words"]})
    with pytest.raises(ConfigError) as refused:
        load(dataset_of("pairs", path=path))
    assert str(refused.value) == (
        "train.jsonl:2 prompt: is also in test.jsonl:2, another split "
        "(dataset.overlap=drop leaves it out of the training)"
    )


def test_an_overlap_is_dropped_from_the_training_and_counted(dataset_of, folder):
    path = folder(
        {"train.jsonl": ["a", "shared", "b"], "validation.jsonl": ["c", "also"], "test.jsonl": ["shared", "also"]}
    )
    config = dataset_of("pairs", path=path, overlap="drop")
    found = load(config)
    assert found.as_record()["bad"] == {"overlap": 2}
    assert [prompts_of(config, split) for split in ("train", "dev", "test")] == [
        ["a", "b"],
        ["c"],
        ["shared", "also"],
    ]


def test_without_an_overlap_nothing_is_said(dataset_of, folder):
    path = folder({"train.jsonl": ["a", "same words more"], "test.jsonl": ["c", "same words"]})
    assert load(dataset_of("pairs", path=path)).as_record()["bad"] == {}


def test_the_split_by_prompt_whatever_the_order_and_the_spelling(dataset_of, tmp_path):
    """One file, shuffled ten times, its prompts respelled: each prompt stays in its split, and none is in two."""
    rng = random.Random(0)
    prompts = [f"café number {number} au lait" for number in range(150)] * 2
    spelled = (str.upper, str.title, lambda text: f"  {text}\n", lambda text: text.replace("é", "e\u0301"), str)
    splits = {}
    for trial in range(10):
        rng.shuffle(prompts)
        rows = [row(rng.choice(spelled)(prompt), f"{trial} {index}") for index, prompt in enumerate(prompts)]
        path = tmp_path / f"{trial}.jsonl"
        path.write_text("".join(json.dumps(one) + "\n" for one in rows))
        config = dataset_of("pairs", path=path, test_share=0.3)
        found = {
            split: {found.replace("e\u0301", "é").casefold().strip() for found in prompts_of(config, split)}
            for split in ("train", "test")
        }
        assert not found["train"] & found["test"]
        splits[trial] = found
    assert all(found == splits[0] for found in splits.values())
    assert len(splits[0]["train"]) + len(splits[0]["test"]) == 150
