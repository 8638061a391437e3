"""Folders of datasets' save_to_disk, read without its code."""

import datasets
import pytest

from alignlab.data.sources import load, select_split
from alignlab.errors import ConfigError

ROWS = [{"prompt": f"p{number}", "chosen": "a", "rejected": "b"} for number in range(700)]


@pytest.fixture
def saved(tmp_path):
    """A saved Dataset, in two files."""
    datasets.Dataset.from_list(ROWS).save_to_disk(str(tmp_path / "saved"), num_shards=2)
    return tmp_path / "saved"


def test_a_saved_dataset(dataset_of, saved):
    rows = load(dataset_of("pairs", path=saved)).rows
    assert [row.prompt for row in rows] == [row["prompt"] for row in ROWS]
    assert rows[0].location == "data-00000-of-00002.arrow:1"


def test_cached_files_beside_it_are_not_data(dataset_of, saved):
    (saved / "cache-0123.arrow").write_bytes((saved / "data-00000-of-00002.arrow").read_bytes())
    assert len(load(dataset_of("pairs", path=saved)).rows) == len(ROWS)


def test_a_saved_dict_has_its_splits(dataset_of, tmp_path):
    tables = {"train": datasets.Dataset.from_list(ROWS[:9]), "validation": datasets.Dataset.from_list(ROWS[9:12])}
    datasets.DatasetDict(tables).save_to_disk(str(tmp_path / "saved"))
    config = dataset_of("pairs", path=tmp_path / "saved", eval_split="dev")
    rows = load(config).rows
    assert [len(select_split(rows, config, split)) for split in ("train", "dev", "test")] == [9, 3, 0]


def test_a_selection_is_saved_as_it_is(dataset_of, tmp_path):
    datasets.Dataset.from_list(ROWS).select([5, 3]).save_to_disk(str(tmp_path / "saved"))
    assert [row.prompt for row in load(dataset_of("pairs", path=tmp_path / "saved")).rows] == ["p5", "p3"]


def test_a_damaged_one_is_refused(dataset_of, saved):
    file = saved / "data-00001-of-00002.arrow"
    file.write_bytes(file.read_bytes()[:300])
    with pytest.raises(ConfigError, match=r"data-00001-of-00002\.arrow: cannot be read as Arrow"):
        load(dataset_of("pairs", path=saved))
    (saved / "state.json").write_text("no json")
    with pytest.raises(ConfigError, match=r"state\.json: cannot be read as the list of files"):
        load(dataset_of("pairs", path=saved, revision="again"))
