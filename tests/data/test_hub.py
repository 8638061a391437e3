"""The hub without a network: what is asked of `datasets`, and what becomes of the answer."""

import dataclasses

import datasets
import huggingface_hub
import pytest

from alignlab.data.sources import load, select_split
from alignlab.errors import ConfigError


def pair(number, **changes):
    row = {
        "prompt": f"p{number}",
        "response_0": "a",
        "response_1": "b",
        "better_response_id": 0,
        "safer_response_id": 1,
    }
    return {**row, "prompt_source": "x", **changes}


@pytest.fixture
def hub(monkeypatch):
    """Tables by split instead of the hub's; the calls that were made."""
    tables, calls = {}, []

    def load_dataset(path, **options):
        calls.append({"path": path, **options})
        return datasets.Dataset.from_list(tables[options["split"]])

    class Api:
        def dataset_info(self, name, revision=None):
            return type("Info", (), {"sha": f"commit of {revision}"})

    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    return tables, calls


@pytest.fixture
def from_hub(dataset_of):
    return lambda choice, **changes: dataclasses.replace(dataset_of(choice, **changes), path=None)


def test_a_dataset_is_read_at_its_commit_which_is_recorded(hub, from_hub):
    tables, calls = hub
    tables["train"] = [pair(number) for number in range(5)]
    found = load(from_hub("pku_saferlhf"))
    assert [row.location for row in found.rows][:2] == ["PKU-Alignment/PKU-SafeRLHF:1", "PKU-Alignment/PKU-SafeRLHF:2"]
    assert found.as_record()["revision"] == "commit of None"
    (call,) = calls
    assert call == {
        "path": "PKU-Alignment/PKU-SafeRLHF",
        "name": None,
        "data_dir": None,
        "split": "train",
        "revision": "commit of None",
    }
    assert "trust_remote_code" not in call


def test_parts_of_a_dataset(hub, from_hub):
    tables, calls = hub
    tables["train"] = [{"chosen": "\n\nHuman: a\n\nAssistant: b", "rejected": "\n\nHuman: a\n\nAssistant: c"}]
    load(from_hub("hh_helpful", revision="v1"))
    assert (calls[0]["data_dir"], calls[0]["revision"]) == ("helpful-base", "commit of v1")


def test_a_held_out_split_of_the_hub_is_honoured(hub, from_hub):
    tables, _ = hub
    tables["train"], tables["test"] = [pair(1), pair(2)], [pair(3)]
    config = from_hub("pku_saferlhf", test_split="test")
    rows = load(config).rows
    assert [row.prompt for row in select_split(rows, config, "train")] == ["p1", "p2"]
    assert [row.prompt for row in select_split(rows, config, "test")] == ["p3"]
    tables["test"] = [pair(2)]
    with pytest.raises(ConfigError, match=r"SafeRLHF/train:2 prompt: is also in PKU-Alignment/PKU-SafeRLHF/test:1"):
        load(from_hub("pku_saferlhf", test_split="test", revision="another"))


def test_the_hubs_rows_are_checked_too(hub, from_hub):
    tables, _ = hub
    tables["train"] = [pair(1), pair(2, response_1="")]
    with pytest.raises(ConfigError, match=r"PKU-Alignment/PKU-SafeRLHF:2 response_1: is empty"):
        load(from_hub("pku_saferlhf", revision="checked"))
    tables["train"] = [{"question": "x", "answer": "y"}]
    with pytest.raises(ConfigError, match=r"PKU-SafeRLHF:1 prompt: no such column; choose one of answer, question"):
        load(from_hub("pku_saferlhf", revision="other columns"))


def test_without_a_network_a_line_says_so(monkeypatch, from_hub):
    def refuse(*_, **__):
        raise ConnectionError("no route to host\nand a long story")

    monkeypatch.setattr(datasets, "load_dataset", refuse)
    monkeypatch.setattr(huggingface_hub.HfApi, "dataset_info", refuse)
    with pytest.raises(ConfigError) as refused:
        load(from_hub("shp"))
    assert str(refused.value) == (
        "dataset.hub=stanfordnlp/SHP: cannot be loaded (ConnectionError: no route to host); "
        "without a network give dataset.path=FILE"
    )
