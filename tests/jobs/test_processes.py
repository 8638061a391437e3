"""Two processes train what one process trains with twice the accumulation, and end with the one that started them."""

import itertools
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from accelerate.data_loader import BatchSamplerShard
from safetensors.torch import load_file

from alignlab.training.checkpoints import last_whole_checkpoint
from alignlab.training.sampler import GroupedBatchSampler
from support.commands import SMALL, alignlab, environment, logged, losses, result, run_folder

# Steps of 12 pairs from 160: the fourteenth is short of pairs, and the fifteenth belongs to the next epoch.
RECIPE = (
    "w=0.6",
    "reward=gold",
    "peft.dropout=0",
    "trainer.per_device_train_batch_size=6",
    "trainer.gradient_accumulation_steps=2",
)
NUM_STEPS = 16


@pytest.fixture(scope="module")
def prepared(whole, tmp_path_factory):
    """Makes a new folder in which the reference model and the pairs are there."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(whole / "cache", folder / "cache")
        return folder

    return make


@pytest.mark.slow
def test_two_processes_train_what_one_trains_with_twice_the_accumulation(prepared):
    folders = []
    for hardware in ("cpu", "cpu_2"):
        root = prepared(hardware)
        ended = alignlab(*RECIPE, f"trainer.max_steps={NUM_STEPS}", f"hardware={hardware}", cwd=root)
        assert ended.returncode == 0, ended.stderr
        folders.append(run_folder(root, "modpo"))
    one, two = folders
    assert "training on 2 processes" in ended.stdout
    assert one.name == two.name  # the hardware is no part of what a run is
    assert len(losses(one)) == NUM_STEPS
    for ours, theirs in zip(losses(one), losses(two), strict=True):
        assert theirs == pytest.approx(ours, abs=1e-5)
    for name in ("rewards/margins", "rewards/accuracies", "logps/chosen", "num_tokens", "epoch"):
        ours, theirs = ([row[name] for row in logged(folder) if name in row] for folder in folders)
        assert theirs == pytest.approx(ours, abs=1e-4)
    weights = [load_file(folder / "adapter" / "adapter_model.safetensors") for folder in folders]
    for name, value in weights[0].items():
        torch.testing.assert_close(weights[1][name], value, rtol=1e-4, atol=1e-5)
    assert not (two / "stage").exists()


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
            batch_size=12,
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
        _rows_of_each_step(GroupedBatchSampler(range(24), batch_size=12, seed=3, parts=1), processes=processes)
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
    _wait(lambda: any((root / "runs").rglob("checkpoint-4/manifest.json")), seconds=150)
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
