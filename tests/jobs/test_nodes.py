"""Two nodes, here two commands on one machine, train what one process trains; each ends when the other is gone."""

import os
import shutil
import signal
import subprocess
import sys
import time
from functools import cache
from pathlib import Path

import pytest
from safetensors.torch import load_file
from torch.testing import assert_close

from support.commands import PAIRS, SMALL, alignlab, environment, files_below, losses, means, result, run_folder
from support.sharded import free_port

# Steps of 12 pairs from 160: the fourteenth is short of pairs, and the fifteenth belongs to the next epoch.
RECIPE = (
    PAIRS,
    "peft.dropout=0",
    "trainer.per_device_train_batch_size=6",
    "trainer.gradient_accumulation_steps=2",
    "trainer.save_steps=4",
)
METHODS = {
    "modpo": ("w=0.6", "reward=gold", "trainer.max_steps=40"),
    "dpo": ("algorithm=dpo", "trainer.max_steps=16"),
    "reward_model": ("algorithm=reward_model", "algorithm.kind=classifier", "trainer.max_steps=16"),
}
WEIGHTS = "[ar]*/adapter_model.safetensors"
"""A policy's adapter, or a classifier's."""
IMPATIENT = """
import sys
from alignlab.cli import main
from alignlab.runs import nodes

nodes.JOIN_SECONDS = 1.0
sys.exit(main())
"""


@pytest.fixture(scope="module")
def prepared(whole, tmp_path_factory):
    """Makes a new folder in which the reference model and the pairs are there."""

    def make(name):
        folder = tmp_path_factory.mktemp(name)
        shutil.copytree(whole / "cache", folder / "cache")
        return folder

    return make


@pytest.fixture(scope="module")
def one(prepared):
    """The run of one process, by method."""

    @cache
    def run(method):
        root = prepared("one")
        ended = alignlab(*RECIPE, *METHODS[method], cwd=root)
        assert ended.returncode == 0, ended.stderr
        return run_folder(root, method)

    return run


def start(root, rank, port, *overrides, method="modpo", program=("-m", "alignlab")):
    """The command on one of two nodes; what it prints goes to nodeRANK.txt."""
    variables = {"NODE_RANK": str(rank), "MASTER_ADDR": "localhost", "MASTER_PORT": str(port)}
    with (root / f"node{rank}.txt").open("w") as stream:
        return subprocess.Popen(
            [sys.executable, *program, *SMALL, *RECIPE, *METHODS[method], "hardware.nodes=2", *overrides],
            cwd=root,
            env=environment(root) | variables,
            stdout=stream,
            stderr=subprocess.STDOUT,
        )


def said(root, rank):
    return (root / f"node{rank}.txt").read_text()


def run_both(root, method):
    port = free_port()
    nodes = [start(root, rank, port, method=method) for rank in (1, 0)]
    assert [node.wait() for node in nodes] == [0, 0], said(root, 0) + said(root, 1)
    return run_folder(root, method)


def assert_same(ours, theirs):
    assert len(losses(ours)) == len(losses(theirs))
    for one, other in zip(losses(ours), losses(theirs), strict=True):
        assert one == pytest.approx(other, abs=1e-5)
    (weights,), (others,) = ([load_file(file) for file in folder.glob(WEIGHTS)] for folder in (ours, theirs))
    for name, value in weights.items():
        assert_close(others[name], value, rtol=1e-4, atol=1e-5)
    assert means(ours) == pytest.approx(means(theirs), rel=1e-4, abs=1e-6)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
def test_two_nodes_train_what_one_process_trains_with_twice_the_accumulation(prepared, one, method):
    root = prepared("two")
    folder = run_both(root, method)
    assert folder.name == one(method).name  # the hardware is no part of what a run is
    assert_same(folder, one(method))
    assert "training on 2 processes of 2 nodes" in said(root, 0)
    assert "node 1: training on processes 1 of 2" in said(root, 1)
    assert "node 1: node 0 has ended with code 0" in said(root, 1)
    assert not (folder / "stage").exists()


@pytest.mark.slow
def test_a_node_that_trains_nothing_would_show(prepared, one):
    """Control: without the other node's half of each step neither losses nor results are those of both."""
    half = prepared("half")
    ended = alignlab(*RECIPE, *METHODS["dpo"], "trainer.gradient_accumulation_steps=1", cwd=half)
    assert ended.returncode == 0, ended.stderr
    ours, theirs = run_folder(half, "dpo"), one("dpo")
    assert len(losses(ours)) == len(losses(theirs))
    assert losses(ours)[0] != pytest.approx(losses(theirs)[0], abs=1e-5)
    assert means(ours) != pytest.approx(means(theirs), rel=1e-4, abs=1e-6)
    with pytest.raises(AssertionError):
        assert_same(ours, theirs)


@pytest.mark.slow
def test_a_node_of_another_command_is_refused_and_the_right_one_is_waited_for(prepared):
    root, port = prepared("another"), free_port()
    first, other = start(root, 0, port), start(root, 1, port, "w=0.7")
    assert other.wait() == 2
    why = "it was started with another command, or another version, than node 0"
    assert f"node 1: refused by node 0 at localhost:{port}: {why}" in said(root, 1)
    assert f"node 1 at 127.0.0.1 is refused: {why}" in said(root, 0)
    assert first.poll() is None
    first.send_signal(signal.SIGTERM)
    assert first.wait() == 143
    assert "Traceback" not in said(root, 0) + said(root, 1)


@pytest.mark.slow
def test_a_node_whose_first_node_is_killed_ends_and_both_resume(prepared, one):
    root, port = prepared("killed"), free_port()
    other, first = (start(root, rank, port) for rank in (1, 0))
    _wait(lambda: files_below(root / "runs", "checkpoint-4/manifest.json"), seconds=300)
    assert len(_alive(root)) == 6  # control: on each node alignlab, torchrun and a worker are seen
    first.kill()
    assert first.wait() == -signal.SIGKILL
    assert other.wait(timeout=120) == 1
    line = said(root, 1).strip().splitlines()[-1]
    assert line.startswith("node 1: node 0 at localhost is gone before its command was over; rerun the same command")
    _wait(lambda: not _alive(root), seconds=60)
    folder = run_both(root, "modpo")
    assert "resumes from" in (folder / "processes.log").read_text()
    assert_same(folder, one("modpo"))


@pytest.mark.slow
def test_a_signal_on_either_node_saves_and_ends_both(prepared):
    root, port = prepared("signal"), free_port()
    other, first = (start(root, rank, port, "trainer.max_steps=4000") for rank in (1, 0))
    _wait(lambda: files_below(root / "runs", "checkpoint-4/manifest.json"), seconds=300)
    other.send_signal(signal.SIGTERM)
    assert (other.wait(timeout=120), first.wait(timeout=120)) == (143, 143), said(root, 0)
    assert result(run_folder(root, "modpo"))["status"] == "interrupted"
    _wait(lambda: not _alive(root), seconds=60)


@pytest.mark.slow
def test_nodes_that_wait_for_each_other_in_vain_say_so(tmp_path):
    port = free_port()
    ended = []
    for rank in (0, 1):  # one after the other, so that they do not meet
        ended.append(start(tmp_path, rank, port, program=("-c", IMPATIENT)).wait())
    assert ended == [1, 1]
    assert "waits for node 1 of 2: 0:00 of 0:01" in said(tmp_path, 0)
    assert "hardware.nodes=2: node 1 did not join within 0:01; start the same command" in said(tmp_path, 0)
    assert f"node 1: node 0 at localhost:{port} was not reached within 0:01" in said(tmp_path, 1)
    assert [file.name for file in (tmp_path / "runs").iterdir()] == [f".nodes.{os.getuid()}"]


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
