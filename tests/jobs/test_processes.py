"""Two processes train what one process trains with twice the accumulation, and end with the one that started them."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file

from alignlab.training.checkpoints import last_whole_checkpoint
from alignlab.training.sampler import GroupedBatchSampler
from support.commands import SMALL, alignlab, environment, files_below, logged, losses, means, result, run_folder

# Steps of 12 pairs from 160: the fourteenth is short of pairs, and the fifteenth belongs to the next epoch.
RECIPE = (
    "w=0.6",
    "reward=gold",
    "peft.dropout=0",
    "trainer.per_device_train_batch_size=6",
    "trainer.gradient_accumulation_steps=2",
)
NUM_STEPS = 16
MORE = (*RECIPE[2:], f"trainer.max_steps={NUM_STEPS}")
CLASSIFIER = ("algorithm=reward_model", "algorithm.kind=classifier", *MORE)
METHODS = {
    "modpo": ("algorithm=modpo", "algorithm.objective=better", *RECIPE, f"trainer.max_steps={NUM_STEPS}"),
    "sft": ("algorithm=sft", *MORE),
    "classifier": CLASSIFIER,
    "whole classifier": (*CLASSIFIER, "algorithm.full=true"),
    "cost": (*CLASSIFIER, "algorithm.kind=cost"),
}
SHOWN = {
    "algorithm=modpo": ("rewards/margins", "rewards/accuracies", "logps/chosen", "num_tokens", "epoch"),
    "algorithm=sft": ("num_tokens", "epoch"),
    "algorithm=reward_model": ("accuracy", "margin", "mean_reward", "num_tokens", "epoch"),
}
"""Metrics that do not depend on how a step's rows are cut."""
WEIGHTS = "[ar]*/*model.safetensors"
"""An adapter, or a classifier."""


@pytest.fixture(scope="module")
def prepared(whole, tmp_path_factory):
    """Makes a new folder in which the reference model and the pairs are there."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(whole / "cache", folder / "cache")
        return folder

    return make


def run_on(root, hardware, method, *overrides):
    """The run's folder, of a command that ended well."""
    settings = [one for one in SMALL if method != "sft" or not one.startswith("algorithm.beta")]
    ended = alignlab(*METHODS[method], f"hardware={hardware}", *overrides, cwd=root, small=settings)
    assert ended.returncode == 0, ended.stderr
    assert ("training on 2 processes" in ended.stdout) == (hardware == "cpu_2")
    assert "has no effect" not in "".join(line for line in ended.stderr.splitlines() if "hardware" in line)
    folder = run_folder(root, METHODS[method][0].partition("=")[2])
    assert not (folder / "stage").exists()
    return folder


def weights_of(folder):
    return {name: value for file in sorted(folder.glob(WEIGHTS)) for name, value in load_file(file).items()}


@pytest.fixture(scope="module")
def one(prepared):
    """The run of one process, by method."""
    return cache(lambda method: run_on(prepared("one"), "cpu", method))


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_processes_train_what_one_trains_with_twice_the_accumulation(prepared, one, method):
    two = run_on(prepared("two"), "cpu_2", method)
    assert one(method).name == two.name  # the hardware is no part of what a run is
    assert len(losses(one(method))) == NUM_STEPS
    for ours, theirs in zip(losses(one(method)), losses(two), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)
    for name in SHOWN[METHODS[method][0]]:
        ours, theirs = ([row[name] for row in logged(folder) if name in row] for folder in (one(method), two))
        assert len(ours) >= NUM_STEPS
        assert theirs == pytest.approx(ours, abs=1e-4)
    ours, theirs = weights_of(one(method)), weights_of(two)
    assert ours.keys() == theirs.keys() != set()
    for name, value in ours.items():
        torch.testing.assert_close(theirs[name], value, rtol=1e-4, atol=1e-5)
    assert means(two) == pytest.approx(means(one(method)), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "classifier"])
def test_a_process_that_trains_nothing_would_show(prepared, one, method):
    """Control: without the other process's half of each step neither losses nor weights are those of both."""
    half = run_on(prepared("half"), "cpu", method, "trainer.gradient_accumulation_steps=1")
    assert losses(half)[0] != pytest.approx(losses(one(method))[0], abs=1e-4)
    ours, theirs = weights_of(one(method)), weights_of(half)
    assert any(not torch.allclose(theirs[name], value, rtol=1e-3, atol=1e-4) for name, value in ours.items())


@pytest.mark.slow
@pytest.mark.parametrize("method", ["sft", "classifier"])
def test_two_processes_that_were_killed_go_on_where_they_stopped(prepared, method):
    """To the undisturbed one's bytes, dropout's random numbers included, in the second epoch's order of rows."""
    given = (*METHODS[method], "hardware=cpu_2", "peft.dropout=0.1", "trainer.save_steps=7", "trainer.max_steps=60")
    whole = run_on(prepared("whole"), "cpu_2", method, *given[-3:])
    root = prepared("killed")
    settings = [one for one in SMALL if method != "sft" or not one.startswith("algorithm.beta")]
    command = [sys.executable, "-m", "alignlab", *settings, *given]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    started = subprocess.Popen(command, cwd=root, env=environment(root), **quiet)
    _wait(lambda: files_below(root / "runs", "checkpoint-21/manifest.json"), seconds=150)
    os.kill(started.pid, signal.SIGKILL)
    assert started.wait() == -signal.SIGKILL
    _wait(lambda: not _alive(root), seconds=20)
    assert not list((root / "runs").glob(f"*/*/*/*/{WEIGHTS}"))
    again = run_on(root, "cpu_2", method, *given[-3:])
    assert "resumes from" in (again / "processes.log").read_text()
    (ours,), (theirs,) = (list(folder.glob(WEIGHTS)) for folder in (whole, again))
    assert theirs.read_bytes() == ours.read_bytes()
    assert [row[1] for row in losses(again)] == [row[1] for row in losses(whole)]


def _rows_of_each_step(batches, *, processes):
    """The rows of every optimizer step, as accelerate hands out batches of any sizes."""
    options = {"num_processes": processes, "even_batches": False}
    shards = [list(BatchSamplerShard(batches, process_index=rank, **options)) for rank in range(processes)]
    return [sorted(itertools.chain(*together)) for together in zip(*shards, strict=True)]


@pytest.mark.parametrize("sets_per_step", [None, 4])
@pytest.mark.parametrize("set_size", [1, 5, 30])
@pytest.mark.parametrize("num_rows", [5, 12, 31, 160])
def test_a_step_has_the_same_rows_on_any_number_of_processes(num_rows, set_size, sets_per_step):
    steps = []
    for processes in (1, 2, 4):
        batches = GroupedBatchSampler(
            [row // set_size for row in range(num_rows)],
            rows_per_step=12,
            seed=3,
            sets_per_step=sets_per_step,
            parts=processes,
        )
        batches.set_epoch(2)
        steps.append(_rows_of_each_step(batches, processes=processes))
    assert all(other == steps[0] for other in steps)
    assert {row for step in steps[0] for row in step} == set(range(num_rows))
    assert sets_per_step or all(len(step) == 12 for step in steps[0])


def test_a_step_that_is_not_cut_for_its_processes_would_not_have():
    """Control."""
    one, two = (
        _rows_of_each_step(GroupedBatchSampler(range(24), rows_per_step=12, seed=3, parts=1), processes=processes)
        for processes in (1, 2)
    )
    assert one != two


@pytest.mark.slow
def test_a_worker_that_fails_is_named_with_its_log(prepared):
    root = prepared("fails")
    layers = "peft.target_modules=no-such-layer"  # a regular expression, which is tried on the loaded model
    ended = alignlab(*RECIPE, "hardware=cpu_2", layers, cwd=root)
    assert ended.returncode == 1
    folder = run_folder(root, "modpo")
    record = result(folder)
    assert record["status"] == "failed"
    assert "peft.target_modules=no-such-layer: the model has no such module" in record["error"]
    assert str(folder.relative_to(root) / "processes.log") in record["error"]
    assert record["error"].splitlines()[0] in ended.stderr
    assert "Traceback" not in ended.stderr
    assert "Traceback" in (folder / "processes.log").read_text()


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_processes_end_with_the_one_that_started_them(prepared, number):
    root = prepared("killed")
    command = [*SMALL, *RECIPE, "trainer.max_steps=400", "trainer.save_steps=4", "hardware=cpu_2"]
    started = subprocess.Popen(
        [sys.executable, "-m", "alignlab", *command],
        cwd=root,
        env=environment(root),
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    _wait(lambda: files_below(root / "runs", "checkpoint-4/manifest.json"), seconds=150)
    assert len(_alive(root)) == 4  # control: alignlab, torchrun and two workers are seen
    before = last_whole_checkpoint(run_folder(root, "modpo") / "checkpoints")
    os.kill(started.pid, number)
    assert started.wait() == (143 if number == signal.SIGTERM else -9)
    _wait(lambda: not _alive(root), seconds=20)
    folder = run_folder(root, "modpo")
    if number == signal.SIGTERM:  # both stop after the same step, and it is saved
        assert result(folder)["status"] == "interrupted"
        assert last_whole_checkpoint(folder / "checkpoints") != before
        assert not (folder / "adapter").exists()


def _alive(root):
    """Processes that work in a folder."""
    found = []
    for process in Path("/proc").iterdir():
        if process.name.isdigit():
            try:
                if Path(os.readlink(process / "cwd")) == root and (process / "cmdline").read_bytes():
                    found.append(process.name)
            except OSError:
                continue
    return found


def _wait(true, *, seconds):
    deadline = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.1)
