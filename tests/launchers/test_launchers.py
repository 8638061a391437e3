"""A sweep gives the same numbers wherever its jobs run."""

import importlib.util
import itertools
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import psutil
import pytest
import yaml
from hydra import compose

from alignlab.config.hydra.compose import composing, register
from support.commands import (
    PAIRS,
    REPOSITORY,
    SMALL,
    alignlab,
    environment,
    files_below,
    losses,
    means,
    result,
    run_folder,
)

LAUNCHERS = {
    "parallel": "hydra_plugins.hydra_joblib_launcher",
    "slurm_local": "hydra_plugins.hydra_submitit_launcher",
    "ray_local": "hydra_plugins.hydra_ray_launcher",
    "slurm": "hydra_plugins.hydra_submitit_launcher",
}
SWEEP = ("-m", "paths.runs=runs", *SMALL, PAIRS, "w=0.3,0.7")  # relative paths: a worker has to find them too


def _needs(name):
    if importlib.util.find_spec(LAUNCHERS[name]) is None:
        pytest.skip(f"needs {LAUNCHERS[name]}")


def _only_in_make_everything():
    if not os.environ.get("ALIGNLAB_ALL"):
        pytest.skip("takes minutes to start its processes; make everything runs it")


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    """The sweep as it is without a launcher."""
    folder = tmp_path_factory.mktemp("plain")
    ended = alignlab("-m", "paths.runs=runs", "w=0.3,0.7", cwd=folder)
    assert ended.returncode == 0, ended.stderr
    return folder


def _command(name, *more):
    return [sys.executable, "-m", "alignlab", *SWEEP, f"hydra/launcher={name}", *more]


def _launched(name, plain, folder, *more):
    """The sweep through a launcher; the reward model and all scores are still to be made, by whoever comes first."""
    shutil.copytree(plain / "cache", folder / "cache", ignore=shutil.ignore_patterns("scores"))
    return subprocess.run(
        _command(name, *more),
        cwd=folder,
        env=environment(folder),
        capture_output=True,
        text=True,
        timeout=900,
        check=False,
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", ["slurm_local", "ray_local"])
def test_a_launched_sweep_gives_the_numbers_of_the_plain_one(name, plain, tmp_path):
    _needs(name)
    if name == "ray_local":
        _only_in_make_everything()
    ended = _launched(name, plain, tmp_path)
    assert ended.returncode == 0, ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr
    for w in (0.3, 0.7):
        ours, theirs = run_folder(plain, "modpo", w), run_folder(tmp_path, "modpo", w)
        assert means(theirs) == means(ours)  # to the bit: every run has one thread here
        assert losses(theirs) == losses(ours)
    (front,) = (tmp_path / "runs" / "front").rglob("front.csv")
    assert (front.parent / "front.png").exists()
    _check_shared_work(tmp_path)
    assert {path.name for path in tmp_path.iterdir()} == {"cache", "runs"}  # no launcher's leftovers where users look


@pytest.mark.slow
@pytest.mark.parametrize(
    ("name", "worker", "number"),
    [("slurm_local", "submitit.core._submit", signal.SIGUSR2), ("ray_local", "ray::_run_job", signal.SIGKILL)],
)
def test_a_run_that_is_preempted_or_whose_worker_is_killed_starts_again_by_itself(
    name, worker, number, plain, tmp_path
):
    """Slurm's warning puts a job back into the queue; Ray starts a task again whose worker is gone."""
    _needs(name)
    if name == "ray_local":
        _only_in_make_everything()
    shutil.copytree(plain / "cache", tmp_path / "cache", ignore=shutil.ignore_patterns("scores"))
    with (tmp_path / "out.txt").open("w") as out:
        sweep = subprocess.Popen(_command(name), cwd=tmp_path, env=environment(tmp_path), stdout=out, stderr=out)
        hit = _send_to_workers(sweep, worker, number, tmp_path / "runs" / "modpo")
    said = (tmp_path / "out.txt").read_text()
    assert sweep.returncode == 0, said
    assert hit
    logs = "".join(file.read_text() for file in (tmp_path / "runs").rglob("*_log.out"))
    assert logs.count("Requeued job") == (len(hit) if name == "slurm_local" else 0)
    for w in (0.3, 0.7):
        ours, theirs = run_folder(plain, "modpo", w), run_folder(tmp_path, "modpo", w)
        assert means(theirs) == means(ours)
        assert losses(theirs) == losses(ours)
        weights = "adapter/adapter_model.safetensors"
        assert (theirs / weights).read_bytes() == (ours / weights).read_bytes()


def _send_to_workers(sweep, worker, number, runs):
    """Once both runs have logged a step, send each worker of a sweep one signal; the processes that got it."""
    hit = set()
    while sweep.poll() is None:
        trained = sum(bool(losses(file.parent)) for file in files_below(runs, "metrics.jsonl"))
        for process in psutil.Process(sweep.pid).children(recursive=True) if trained == 2 and not hit else []:
            with suppress(psutil.Error):
                if any(worker in part for part in process.cmdline()):
                    process.send_signal(number)
                    hit.add(process.pid)
        time.sleep(0.01)
    return hit


def _check_shared_work(folder):
    """What both jobs need was computed by one of them: the other waited, or came later."""
    computed = [result(run_folder(folder, "modpo", w))["cache"]["safer"]["computed"] for w in (0.3, 0.7)]
    assert sorted(value > 0 for value in computed) == [False, True]
    steps = [step for step, *_ in losses(run_folder(folder, "reward_model"))]
    assert steps == sorted(set(steps))


def test_another_w_gives_other_numbers(plain):
    """Control: the comparison above can fail."""
    assert means(run_folder(plain, "modpo", 0.3)) != means(run_folder(plain, "modpo", 0.7))


@pytest.mark.slow
def test_launched_runs_may_have_several_processes_and_one_may_fail(plain, tmp_path):
    """Concurrent torchruns in a launcher's workers take ports of their own; the one that fails leaves the other be."""
    _needs("parallel")
    _only_in_make_everything()
    two = (
        "hardware=cpu_2",
        "reward=gold",
        "w=0.3",
        "trainer.max_steps=2",
        "peft.target_modules=[q_proj],no-such-layer",
    )
    ended = _launched("parallel", plain, tmp_path, *two)
    assert ended.returncode == 1
    results = [json.loads(file.read_text()) for file in (tmp_path / "runs" / "modpo").rglob("result.json")]
    done, failed = sorted(results, key=lambda record: record["status"])
    assert (done["status"], failed["status"]) == ("done", "failed")
    assert "peft.target_modules=no-such-layer: the model has no such module" in failed["error"]
    assert "peft.target_modules=no-such-layer: the model has no such module" in ended.stderr
    assert "Traceback" not in ended.stdout + ended.stderr


FILES = sorted((REPOSITORY / "launchers" / "hydra" / "launcher").glob("*.yaml"))


def test_every_launcher_is_tested():
    assert [file.stem for file in FILES] == sorted(LAUNCHERS)


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_launchers_keys_are_those_of_its_plugin(file):
    _needs(file.stem)
    register()
    with composing():
        composed = compose("config", overrides=[f"hydra/launcher={file.stem}"], return_hydra_config=True)
    given = yaml.safe_load(file.read_text())
    given = given["hydra"]["launcher"] if "hydra" in given else given
    for key in given.keys() - {"defaults"}:
        assert composed.hydra.launcher[key] is not None
    assert composed.hydra.launcher._target_.startswith("hydra_plugins.")


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_a_launchers_keys_are_commented(file):
    lines = file.read_text().splitlines()
    own = lines[lines.index("  - _self_") + 1 :]
    for above, line in itertools.pairwise(own):
        key, _, value = line.strip().partition(":")
        if value and not key.startswith("#"):
            assert above.strip().startswith("#"), line


def test_no_run_of_the_local_executor_takes_more_threads_than_it_was_given():
    """It starts all runs at once, so each gets one thread unless the user says otherwise."""
    _needs("slurm_local")
    register()
    with composing():
        composed = compose("config", overrides=["hydra/launcher=slurm_local"], return_hydra_config=True)
    assert "OMP_NUM_THREADS" in composed.hydra.job.env_set


def test_submitits_own_files_stay_below_the_runs():
    _needs("slurm_local")
    register()
    with composing():
        overrides = ["hydra/launcher=slurm_local", "paths.runs=/tmp/somewhere"]
        composed = compose("config", overrides=overrides, return_hydra_config=True)
    assert Path(composed.hydra.launcher.submitit_folder).is_relative_to("/tmp/somewhere/.submitit")
