"""A dev split beside train and test, and splits of conversations that all begin alike."""

import json

import pytest

from alignlab.data.records import Turn
from alignlab.data.sources import check_source, load, select_split, split_notice
from alignlab.data.splits import split_of
from alignlab.errors import ConfigError

PROMPTS = [f"request number {number}" for number in range(2000)]


def test_a_dev_share_takes_from_train_alone():
    plain = [split_of(text, 0.1) for text in PROMPTS]
    with_dev = [split_of(text, 0.1, dev_share=0.2) for text in PROMPTS]
    assert [split == "test" for split in plain] == [split == "test" for split in with_dev]
    assert with_dev.count("dev") / len(PROMPTS) == pytest.approx(0.2, abs=0.03)
    assert "dev" not in plain


def write(path, prompts):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps({"prompt": p, "chosen": "a", "rejected": "b"}) + "\n" for p in prompts))
    return path


@pytest.fixture
def parts(dataset_of):
    """Split -> prompts of a path, and the config."""

    def of(path, **changes):
        config = dataset_of("pairs", path=path, **changes)
        rows = load(config).rows
        return {split: [row.prompt for row in select_split(rows, config, split)] for split in ("train", "dev", "test")}

    return of


def test_the_splits_of_a_file(parts, tmp_path):
    path = write(tmp_path / "rows.jsonl", PROMPTS[:300])
    plain, with_dev = parts(path), parts(path, dev_share=0.3)
    assert plain["dev"] == []
    assert with_dev["test"] == plain["test"]
    assert sorted(with_dev["train"] + with_dev["dev"]) == sorted(plain["train"])
    assert len(with_dev["dev"]) > 50


def test_files_that_name_their_split(parts, tmp_path):
    write(tmp_path / "set/train.jsonl", PROMPTS[:100])
    write(tmp_path / "set/test.jsonl", PROMPTS[100:120])
    assert len(parts(tmp_path / "set")["train"]) == 100
    shared = parts(tmp_path / "set", dev_share=0.3)
    assert (len(shared["test"]), len(shared["train"]) + len(shared["dev"])) == (20, 100)
    assert 10 < len(shared["dev"]) < 60
    write(tmp_path / "set/validation.jsonl", PROMPTS[120:130])
    given = parts(tmp_path / "set", dev_share=0.3)
    assert [len(given[split]) for split in ("train", "dev", "test")] == [100, 10, 20]


def test_a_validation_file_is_dev_where_dev_is_asked_for(parts, tmp_path):
    write(tmp_path / "set/train.jsonl", PROMPTS[:10])
    write(tmp_path / "set/val.jsonl", PROMPTS[10:14])
    assert [len(part) for part in parts(tmp_path / "set").values()] == [10, 0, 4]
    assert [len(part) for part in parts(tmp_path / "set", eval_split="dev").values()] == [10, 4, 0]
    assert [len(part) for part in parts(tmp_path / "set", split="validation").values()] == [10, 4, 0]


def talk(number):
    return (Turn("user", "hello"), Turn("assistant", "hi"), Turn("user", f"request {number}"))


@pytest.fixture
def talks(tmp_path):
    path = tmp_path / "talks.jsonl"
    rows = [
        {"prompt": [{"role": turn.role, "content": turn.content} for turn in talk(n)], "chosen": "a", "rejected": "b"}
        for n in range(40)
    ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def test_conversations_that_all_begin_alike_are_told_and_can_be_split(dataset_of, talks):
    empty = next(split for split in ("test", "train") if split != split_of(talk(0), 0.1))
    remedy = "all begin with one request, which decides the split: dataset.split_by=prompt takes the whole prompt"
    with pytest.raises(ConfigError) as refused:
        check_source(dataset_of("pairs", path=talks, split=empty))
    assert f"dataset.split={empty}: holds none of 40 rows" in str(refused.value)
    assert remedy in str(refused.value)
    config = dataset_of("pairs", path=talks, split_by="prompt", test_share=0.3)
    rows = load(config).rows
    assert 0 < len(select_split(rows, config, "test")) < 40
    check_source(config)
    assert split_notice(rows, config) is None


def test_a_set_without_held_out_rows_says_so(dataset_of, tmp_path):
    path = write(tmp_path / "rows.jsonl", [text for text in PROMPTS[:60] if split_of(text, 0.1) == "train"])
    config = dataset_of("pairs", path=path)
    notice = split_notice(load(config).rows, config)
    assert notice.startswith("dataset=pairs: the test split holds none of ")
    assert notice.endswith("so nothing is measured on held-out rows")
    assert split_notice(load(config).rows, dataset_of("pairs", path=path, split=None)) is None


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"dev_share": 0.95}, "dataset.dev_share=0.95: must be >= 0 and leave prompts to train on"),
        ({"eval_split": "train"}, "dataset.eval_split=train: choose one of dev, test"),
        ({"split_by": "row"}, "dataset.split_by=row: choose one of first_request, prompt"),
        ({"near_duplicates": 0.0}, "dataset.near_duplicates=0.0: must be a similarity above 0"),
        ({"on_long": "keep"}, "dataset.on_long=keep: choose one of cut, drop"),
    ],
)
def test_settings_out_of_range(dataset_of, tmp_path, changes, said):
    with pytest.raises(ConfigError) as refused:
        dataset_of("pairs", path=tmp_path / "x.jsonl", **changes)
    assert said in str(refused.value)
