"""sft and classifiers whose processes share weights out (FSDP2) train the same, and resume."""

import dataclasses
import json
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing import start_processes

from support.sharded import ONE, Watch, free_port
from support.sharded_others import NAMES, train, work


def weights_of(folder):
    return {name: value for file in folder.glob("[ar]*/*model.safetensors") for name, value in load_file(file).items()}


def assert_same_weights(left, right):
    ours, theirs = weights_of(left), weights_of(right)
    assert ours.keys() == theirs.keys() != set()
    for key, value in ours.items():
        torch.testing.assert_close(theirs[key], value, rtol=1e-4, atol=1e-5)


@pytest.fixture(scope="module")
def shared(base, encoded_rows, tmp_path_factory):
    """The folder of two processes' work, and what they told."""
    folder = tmp_path_factory.mktemp("shared")
    for name in NAMES:
        with suppress(KeyboardInterrupt):
            train(folder / f"{name} begun by one", name, base, encoded_rows, Watch(break_at=3))
    given = (folder, free_port(), base, encoded_rows)
    processes = start_processes(work, given, nprocs=2, join=False, daemon=True, start_method="fork")
    for _ in range(2):  # a call ends with the next process
        processes.join(timeout=900)
    told = json.loads((folder / "told.json").read_text())
    return folder, {name: SimpleNamespace(**seen) for name, seen in told.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_shared_weights_train_the_same(shared, base, encoded_rows, tmp_path, name):
    folder, told = shared
    one, two = train(tmp_path, name, base, encoded_rows), told[name]
    assert (one.shared, two.shared) == (0, 1)  # control: all of the weights are shared out, between steps
    assert len(one.losses) == 4
    assert two.losses == pytest.approx(one.losses, rel=1e-6)
    assert two.norms == pytest.approx(one.norms, rel=1e-5)
    assert_same_weights(tmp_path, folder / name)
    result = "adapter/adapter_config.json" if name == "sft" else "reward"
    files = [tmp_path / result] if name == "sft" else sorted((tmp_path / result).glob("*config.json"))
    assert [(folder / name / file.relative_to(tmp_path)).read_text() for file in files] == [
        file.read_text() for file in files
    ]


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_shared_training_goes_on_where_it_was_broken(shared, name):
    folder, told = shared
    assert len(told[f"{name} broken"].losses) == 1  # control: the first three steps are not taken again
    ours, theirs = weights_of(folder / name), weights_of(folder / f"{name} broken")
    assert all(theirs[key].equal(value) for key, value in ours.items())
    assert_same_weights(folder / name, folder / f"{name} begun by one")


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_in_bfloat16_sharing_changes_nothing_but_rounding(shared, base, encoded_rows, tmp_path, name):
    _, told = shared
    one = train(tmp_path, name, base, encoded_rows, hardware=dataclasses.replace(ONE, bf16=True))
    assert told[f"{name} half"].losses == pytest.approx(one.losses, rel=1e-4)
    assert told[f"{name} half"].losses != pytest.approx(told[name].losses, rel=1e-5)  # control
