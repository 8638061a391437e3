"""The same run in several processes at once: computed once, waited for or refused, taken on from a killed one."""

import json
import multiprocessing
import os
import signal
import sys
import time
import types

import pytest

from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.plan import plan_of
from alignlab.errors import ConfigError
from alignlab.runs import runner

register()
fork = multiprocessing.get_context("fork")


@pytest.fixture(scope="module")
def plan():
    with composing():
        (job,) = read_command("config", ["w=0.3"], multirun=False).jobs()
        return plan_of(run_config(job))


@pytest.fixture
def computed(monkeypatch, tmp_path):
    """A file that gets a line for each computation, which takes a while; the first one dies where `kill` is there."""
    file = tmp_path / "computed"

    def run(plan, run, outcome):
        with file.open("a") as stream:
            stream.write(f"{os.getpid()}\n")
        time.sleep(0.5)
        if (tmp_path / "kill").exists():
            (tmp_path / "kill").unlink()
            os.kill(os.getpid(), signal.SIGKILL)
        outcome.metrics["kl"] = {"mean": 0.5, "n": 3}

    monkeypatch.setattr(runner, "load_job", lambda name: types.SimpleNamespace(run=run))
    light = types.SimpleNamespace(forget_models=lambda: None)
    monkeypatch.setitem(sys.modules, "alignlab.prerequisites.models", light)
    return file


def run_four(plan, folder, *, wait):
    """What each of four processes got: its result's metrics, or what it was refused with."""
    told, start = fork.Queue(), fork.Barrier(4)

    def one():
        start.wait(60)
        try:
            told.put(runner.run_in_folder(plan, folder, wait=wait).metrics)
        except ConfigError as error:
            told.put(str(error))
        told.close()
        told.join_thread()
        os._exit(0)

    processes = [fork.Process(target=one) for _ in range(4)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    codes = [process.exitcode for process in processes]
    return [told.get(timeout=10) for code in codes if code == 0], codes


def test_those_that_wait_get_the_one_result(plan, computed, tmp_path):
    told, _ = run_four(plan, tmp_path / "run", wait=True)
    assert told == [{"kl": {"mean": 0.5, "n": 3}}] * 4
    assert len(computed.read_text().splitlines()) == 1


def test_the_same_command_is_refused_while_it_runs(plan, computed, tmp_path):
    told, _ = run_four(plan, tmp_path / "run", wait=False)
    refused = [one for one in told if isinstance(one, str)]
    assert refused, "a process that starts late, on a busy machine, finds it done"
    assert all("in use by another process" in one for one in refused)
    assert len(computed.read_text().splitlines()) == 1
    assert json.loads((tmp_path / "run" / "result.json").read_text())["status"] == "done"


def test_one_that_waits_takes_on_from_one_that_is_killed(plan, computed, tmp_path):
    (tmp_path / "kill").touch()
    told, codes = run_four(plan, tmp_path / "run", wait=True)
    assert sorted(codes) == [-signal.SIGKILL, 0, 0, 0]
    assert told == [{"kl": {"mean": 0.5, "n": 3}}] * 3
    assert len(computed.read_text().splitlines()) == 2


def test_without_the_claim_all_four_would_compute(plan, computed, tmp_path, monkeypatch):
    """Control."""
    from contextlib import nullcontext

    monkeypatch.setattr(runner, "claim", lambda folder, **_: folder.mkdir(exist_ok=True) or nullcontext())
    run_four(plan, tmp_path / "run", wait=True)
    assert len(computed.read_text().splitlines()) > 1
