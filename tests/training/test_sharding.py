"""Weights that processes share out (FSDP2) train the same adapter, from less memory, and resume on any hardware."""

import json
import shutil
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from safetensors.torch import load_file
from torch.multiprocessing import start_processes

from alignlab.training.collate import StepCollator
from support.against_trl import rows_of, table_of
from support.pairs_of_tokens import plain_pairs
from support.sharded import CASES, DEEP, LAYERS, RANKED, Scales, Watch, free_port, train, work

WEIGHTS = "adapter/adapter_model.safetensors"


@pytest.fixture(scope="module")
def shared(tmp_path_factory):
    """The folder of two processes' work, and what they told."""
    folder = tmp_path_factory.mktemp("shared")
    with suppress(KeyboardInterrupt):
        train(folder / "begun by one", RANKED, Watch(break_at=3))
    processes = start_processes(work, (folder, free_port()), nprocs=2, join=False, daemon=True, start_method="fork")
    for _ in range(2):  # a call ends with the next process
        processes.join(timeout=900)
    told = json.loads((folder / "told.json").read_text())
    return folder, {name: SimpleNamespace(**seen) for name, seen in told.items() if name != "failure"}, told["failure"]


def assert_same_adapter(left, right):
    ours, theirs = load_file(left / WEIGHTS), load_file(right / WEIGHTS)
    assert ours.keys() == theirs.keys()
    for name, value in theirs.items():
        torch.testing.assert_close(ours[name], value, rtol=1e-5, atol=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
def test_shared_weights_train_the_same_adapter(shared, tmp_path, name):
    folder, told, _ = shared
    one, two = train(tmp_path, CASES[name]), told[name]
    assert (one.shared, two.shared) == (0, 1)  # control: all of the weights are shared out, between steps
    assert len(one.losses) == 4
    assert two.losses == pytest.approx(one.losses, abs=1e-6)
    assert two.norms == pytest.approx(one.norms, abs=1e-5)
    assert_same_adapter(folder / name, tmp_path)


@pytest.mark.slow
def test_processes_that_disagree_do_not(shared):
    """Control: one of them draws other rows."""
    _, told, _ = shared
    assert abs(told["at odds"].losses[1] - told["ranked"].losses[1]) > 1e-3  # the first step is ln 2 for all


@pytest.mark.slow
def test_in_bfloat16_sharing_changes_nothing(shared):
    """Norms stay in float32 and gradients are summed in it, as where every process has its own weights."""
    folder, told, _ = shared
    assert (told["half"].shared, told["apart"].shared) == (1, 0)
    assert told["half"].losses == pytest.approx(told["apart"].losses, abs=1e-6)
    assert told["half"].losses != pytest.approx(told["ranked"].losses, abs=1e-4)  # control
    assert_same_adapter(folder / "half", folder / "apart")
    weights = load_file(folder / "half" / WEIGHTS).values()
    assert {value.dtype for value in weights} == {torch.float32}


@pytest.mark.slow
def test_a_process_holds_half_of_the_weights(shared, tmp_path):
    _, told, _ = shared
    one, two = train(tmp_path, DEEP, Scales()), told["deep"]
    assert two.losses == pytest.approx(one.losses, abs=1e-5)
    assert 0.5 <= two.rest / one.rest < 0.53
    layers_at_hand = ((two.peak - two.rest) - (one.peak - one.rest)) / (one.rest / LAYERS)
    assert 0 < layers_at_hand < 3  # the one that computes, and the next


@pytest.mark.slow
def test_a_shared_training_goes_on_where_it_was_broken(shared):
    folder, *_ = shared
    assert (folder / "broken" / WEIGHTS).read_bytes() == (folder / "ranked" / WEIGHTS).read_bytes()
    saved = load_file(folder / "broken" / "checkpoints" / "checkpoint-4" / "adapter_model.safetensors")
    assert {"lora_" in name for name in saved} == {True}  # the base is not gathered


@pytest.mark.slow
def test_it_goes_on_on_other_hardware(shared, tmp_path):
    folder, *_ = shared
    assert_same_adapter(folder / "begun by one", folder / "ranked")
    shutil.copytree(folder / "left to one", tmp_path / "one")
    assert len(train(tmp_path / "one", RANKED).losses) == 1  # control: the first three steps are not taken again
    assert_same_adapter(tmp_path / "one", folder / "ranked")


@pytest.mark.slow
def test_a_gradient_that_is_not_finite_stops_every_process(shared):
    *_, failure = shared
    assert failure.startswith("step 1: loss or gradient is not finite; rows: ")


@pytest.mark.parametrize("limit", [1, 3, 4, 5, 8])
def test_processes_in_step_take_as_many_forwards_whatever_their_sets(limit):
    pairs = plain_pairs()[:8]
    tables = [table_of(pairs, sets=sets) for sets in ([0, 0, 0, 1, 1, 1, 2, 2], [0, 0, 0, 0, 1, 1, 1, 1])]
    together, alone = (
        [len(StepCollator(pairs_per_forward=limit, in_step=step)(rows_of(t))["forwards"]) for t in tables]
        for step in (True, False)
    )
    assert together == [-(-8 // limit)] * 2
    assert limit != 4 or alone == [3, 2]  # control
