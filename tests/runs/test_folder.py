"""A run's folder: one process at a time, and a result.json whatever happened."""

import dataclasses
import errno
import json
import math
import resource
import subprocess
import sys
import types

import numpy as np
import pytest

from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.plan import plan_of
from alignlab.errors import ConfigError, JobFailed, OnlyPlanned
from alignlab.io.atomic import write_json
from alignlab.io.hashes import unsealed
from alignlab.runs import folder as folder_module
from alignlab.runs import runner
from alignlab.runs.folder import claim, recording
from alignlab.runs.result import finished_result
from alignlab.runs.summary import print_failures

register()


@pytest.fixture(scope="module")
def plan():
    with composing():
        (job,) = read_command("config", ["w=0.3", "seed=4"], multirun=False).jobs()
        return plan_of(run_config(job))


def read(folder):
    return json.loads((folder / "result.json").read_text())


def test_a_job_that_ends_well(plan, tmp_path):
    with recording(tmp_path, plan, runner.make_run) as (run, outcome):
        with run.stage("training"):
            pass
        outcome.metrics["kl"] = {"mean": 0.5, "ci95": [0.4, 0.6], "n": 9}
        outcome.artifacts["adapter"] = "adapter"
        (tmp_path / "adapter").mkdir()
        outcome.inputs["model"] = "abc"
    record = read(tmp_path)
    assert (record["status"], record["error"], record["algorithm"]) == ("done", None, "modpo")
    assert (record["w"], record["weights"], record["seed"]) == (0.3, {"better": 0.3, "safer": 0.7}, 4)
    assert record["metrics"] == {"kl": {"mean": 0.5, "ci95": [0.4, 0.6], "n": 9}}
    assert record["artifacts"] == {"adapter": "adapter"}
    assert set(record["seconds"]) == {"training", "total"}
    assert record["versions"]["alignlab"]
    assert (tmp_path / "config.json").exists()
    assert (tmp_path / "job.log").exists()
    assert finished_result(tmp_path).to_json() == unsealed(record)


@pytest.mark.parametrize(
    ("error", "ends_as", "status", "said"),
    [
        (RuntimeError("no room\nat all"), JobFailed, "failed", "RuntimeError: no room"),
        (RuntimeError(), JobFailed, "failed", "RuntimeError: "),
        (SystemExit(3), JobFailed, "failed", "SystemExit: 3"),
        (ConfigError("w=2: must be less"), ConfigError, "failed", "w=2: must be less"),
        (KeyboardInterrupt(), KeyboardInterrupt, "interrupted", "rerun the same command to resume"),
        (OnlyPlanned("judge.dry_run=true: 5 calls"), OnlyPlanned, "interrupted", "judge.dry_run=true: 5 calls"),
    ],
    ids=lambda value: repr(value) if isinstance(value, BaseException) else "",
)
def test_a_job_that_ends_badly(plan, tmp_path, error, ends_as, status, said):
    with pytest.raises(ends_as), recording(tmp_path, plan, runner.make_run) as (_, outcome):
        outcome.metrics["kl"] = {"mean": 0.5}
        raise error
    record = read(tmp_path)
    assert record["status"] == status
    assert said in record["error"]
    assert "\n" not in record["error"]
    assert record["metrics"] == {"kl": {"mean": 0.5}}, "what was known is kept"
    assert finished_result(tmp_path) is None


def test_the_traceback_is_in_the_log(plan, tmp_path):
    with pytest.raises(JobFailed, match=r"job\.log"), recording(tmp_path, plan, runner.make_run):
        raise RuntimeError("no room")
    assert "Traceback" in (tmp_path / "job.log").read_text()


@pytest.mark.parametrize("value", [math.nan, math.inf])
def test_a_diverged_run_has_failed_and_its_record_is_still_json(plan, tmp_path, value):
    with pytest.raises(JobFailed, match="diverged"), recording(tmp_path, plan, runner.make_run) as (_, outcome):
        outcome.metrics |= {"kl": {"mean": value, "n": 3}, "helpful": {"mean": 1.0}}
    record = read(tmp_path)
    assert (record["status"], record["metrics"]["kl"]["mean"]) == ("failed", None)
    assert record["metrics"]["helpful"]["mean"] == 1.0


def test_torn_or_foreign_records_are_not_finished(tmp_path):
    for text in ("", '{"status": "do', "[1]", '{"status": "failed"}'):
        (tmp_path / "result.json").write_text(text)
        assert finished_result(tmp_path) is None


def test_a_second_process_is_refused_while_the_first_is_at_work(tmp_path):
    code = (
        "import sys; from pathlib import Path; from alignlab.runs.folder import claim\n"
        "from alignlab.errors import ConfigError\n"
        "try:\n    with claim(Path(sys.argv[1]), wait=False): print('claimed')\n"
        "except ConfigError as error: print(error)"
    )

    def claimed_elsewhere():
        command = [sys.executable, "-c", code, str(tmp_path)]
        return subprocess.run(command, capture_output=True, text=True, check=True).stdout.strip()

    with claim(tmp_path, wait=False):
        assert "in use by another process" in claimed_elsewhere()
    assert claimed_elsewhere() == "claimed", "the lock ends with the block"


def test_a_killed_process_leaves_no_lock(tmp_path):
    code = (
        "import os, sys; from pathlib import Path; from alignlab.runs.folder import claim\n"
        "with claim(Path(sys.argv[1]), wait=False): os._exit(1)"
    )
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 1
    with claim(tmp_path, wait=False):
        pass


class CountedJob(types.ModuleType):
    """A job that counts how often it ran."""

    def __init__(self, error=None):
        super().__init__("counted")
        self.count, self.error = 0, error

    def run(self, plan, run, outcome):
        self.count += 1
        if self.error:
            raise self.error


@pytest.fixture
def job(monkeypatch):
    counted = CountedJob()
    monkeypatch.setattr(runner, "load_job", lambda name: counted)
    light = types.SimpleNamespace(forget_models=lambda: None)  # the real one imports torch
    monkeypatch.setitem(sys.modules, "alignlab.prerequisites.models", light)
    return counted


def test_a_finished_run_is_read_not_run(plan, tmp_path, job):
    first = runner.run_in_folder(plan, tmp_path)
    assert runner.run_in_folder(plan, tmp_path) == first
    assert job.count == 1


def test_what_an_earlier_attempt_left_when_it_was_killed_goes(plan, tmp_path, job):
    """Also where it was killed after it had written that it is done."""
    left = [tmp_path / name for name in (".result.json.01234567", "adapter/.weights.89abcdef", "checkpoints/c-2/x")]
    stays = [tmp_path / name for name in ("mine.txt", "theirs/.result.json.01234567", ".lock")]
    for status in ("new", "done"):
        for file in (*left, *stays):
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_text("")
        assert runner.run_in_folder(plan, tmp_path).status == "done"
        assert not [file for file in left if file.exists()], status
        assert not (tmp_path / "checkpoints").exists()
        assert all(file.exists() for file in stays)
    assert job.count == 1


def test_force_runs_it_again(plan, tmp_path, job):
    runner.run_in_folder(plan, tmp_path)
    (tmp_path / "adapter").mkdir()
    runner.run_in_folder(dataclasses.replace(plan, force=True), tmp_path)
    assert job.count == 2
    assert not (tmp_path / "adapter").exists(), "nothing of the old run is taken for the new one's"


def test_a_failed_run_is_run_again(plan, tmp_path, job):
    job.error = RuntimeError("no room")
    with pytest.raises(JobFailed):
        runner.run_in_folder(plan, tmp_path)
    job.error = None
    assert runner.run_in_folder(plan, tmp_path).status == "done"
    assert job.count == 2


def test_an_earlier_version_s_config_is_written_again(plan, tmp_path, job, monkeypatch, capfd):
    """Its keys were others; the folder's name says which run it holds, also where one of two paths is relative."""
    monkeypatch.chdir(tmp_path)
    folder = plan.folder.absolute()
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps({**plan.record, "algorithm": {"name": "modpo"}}))
    assert runner.run_in_folder(plan, folder).status == "done"
    assert "config.json: is of another version of alignlab; written again" in capfd.readouterr().out


def raising(*_, **__):
    raise RuntimeError("on purpose")


FAULTS = {
    "while the job's module is imported": lambda patch: patch.setattr(runner, "load_job", raising),
    "while an old run's files are removed": lambda patch: patch.setattr(folder_module, "remove_outputs", raising),
    "while the configuration is written": lambda patch: patch.setattr(folder_module, "write_json", raising),
    "in the job": lambda patch: patch.setattr(CountedJob, "run", raising),
    "while metrics are checked": lambda patch: patch.setattr(folder_module, "_check_finite", raising),
    "while files are hashed": lambda patch: patch.setattr(folder_module.RunFolder, "_files", raising),
}


@pytest.mark.parametrize("stage", FAULTS)
def test_an_error_in_any_stage_leaves_a_record(plan, tmp_path, job, monkeypatch, stage):
    FAULTS[stage](monkeypatch)
    with pytest.raises(JobFailed, match="on purpose"):
        runner.run_in_folder(dataclasses.replace(plan, force=True), tmp_path)
    assert (read(tmp_path)["status"], read(tmp_path)["error"]) == ("failed", "RuntimeError: on purpose")
    assert "Traceback" in (tmp_path / "job.log").read_text()


def test_without_a_fault_the_same_run_is_done(plan, tmp_path, job):
    """The control."""
    assert runner.run_in_folder(dataclasses.replace(plan, force=True), tmp_path).status == "done"


@pytest.mark.parametrize("made", ["previous", "made_by"])
def test_an_error_in_what_a_run_needs_first_leaves_a_record(plan, tmp_path, job, monkeypatch, made):
    monkeypatch.setattr(runner, "make_run", raising)
    if made == "previous":
        needy = dataclasses.replace(plan, previous=plan)
    else:
        needy = dataclasses.replace(plan, rows=dataclasses.replace(plan.rows, made_by=plan))
    with pytest.raises(JobFailed, match="on purpose"):
        runner.run_in_folder(needy, tmp_path)
    assert read(tmp_path)["error"] == "RuntimeError: on purpose"
    assert job.count == 0


@pytest.mark.parametrize("part", ["metrics", "extra", "inputs", "artifacts"])
def test_what_cannot_be_written_is_left_out_of_the_record(plan, tmp_path, job, monkeypatch, part):
    def run(_, plan, run, outcome):
        getattr(outcome, part)["odd"] = {"mean": object()}

    monkeypatch.setattr(CountedJob, "run", run)
    with pytest.raises(JobFailed):
        runner.run_in_folder(plan, tmp_path)
    record = read(tmp_path)
    assert record["status"] == "failed"
    assert "odd" not in record.get(part, record)


def test_a_log_that_cannot_be_opened_does_not_stop_the_run(plan, tmp_path, job, capfd):
    (tmp_path / "job.log").mkdir()
    assert runner.run_in_folder(plan, tmp_path).status == "done"
    assert "job.log: cannot be written (Is a directory)" in capfd.readouterr().out


def test_a_folder_in_use_keeps_its_files(plan, tmp_path, job):
    with claim(tmp_path, wait=False), pytest.raises(ConfigError, match="in use"):
        runner.run_in_folder(plan, tmp_path)
    assert job.count == 0
    assert not (tmp_path / "config.json").exists()


@pytest.fixture
def small_files():
    """A limit of 64 KiB a file, which writing past gives the errors of a full disk."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 16, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


def torch_save(path):
    """Torch's writer of archives keeps no error number."""
    raise RuntimeError("[enforce fail at inline_container.cc:672] . unexpected pos 128 vs 22")


def safetensors_save(path):
    from safetensors.numpy import save_file

    save_file({"a": np.zeros(1 << 15)}, path)


@pytest.mark.parametrize("write", [lambda path: path.write_bytes(bytes(1 << 17)), torch_save, safetensors_save])
def test_a_full_disk_is_one_line_and_what_was_saved_stays(plan, tmp_path, small_files, write, capfd):
    with recording(tmp_path, plan, runner.make_run) as (run, _):
        write_json(run.path / "whole.json", {"step": 1})
        with pytest.raises(JobFailed) as ended, recording(tmp_path, plan, runner.make_run) as (run, _):
            write(run.path / "large")
    text = str(ended.value)
    assert "no room to write" in text.splitlines()[0]
    assert "rerun the same command to resume" in text
    assert len(text.splitlines()) == 2
    assert capfd.readouterr().err == ""
    assert json.loads((tmp_path / "whole.json").read_text()) == {"step": 1}


def test_a_disk_without_room_for_the_record_is_one_line_too(plan, tmp_path, monkeypatch, capfd):
    full = OSError(errno.ENOSPC, "No space left on device")

    def fail(*_, **__):
        raise full

    for owner, name in (("alignlab.runs.folder", "write_result"), ("alignlab.runs.folder._JobLog", "flush")):
        monkeypatch.setattr(f"{owner}.{name}", fail)
    with pytest.raises(JobFailed, match="no room to write"), recording(tmp_path, plan, runner.make_run):
        raise full
    monkeypatch.setattr("alignlab.runs.runner.claim", fail)
    with pytest.raises(JobFailed, match="no room to write"):
        runner.run_in_folder(plan, tmp_path / "other")
    assert capfd.readouterr().err == ""


def test_another_error_is_not_a_full_disk(plan, tmp_path, monkeypatch):
    """Control."""
    denied = PermissionError(errno.EACCES, "Permission denied")
    with pytest.raises(JobFailed, match="Permission denied"), recording(tmp_path, plan, runner.make_run):
        raise denied
    assert "no room" not in read(tmp_path)["error"]


def test_a_sweeps_failures_are_listed_with_their_commands(plan, tmp_path, capfd):
    for name in ("a", "b", "c"):
        (tmp_path / name).mkdir()
    with recording(tmp_path / "a", plan, runner.make_run):
        pass
    with pytest.raises(JobFailed), recording(tmp_path / "b", plan, runner.make_run):
        raise RuntimeError("no room\nat all")
    jobs = [(tmp_path / name, [f"w=0.{number}", "dataset.path=a b"]) for number, name in enumerate("abc", 1)]
    print_failures(jobs, ["--config-dir", "mine"])
    said = capfd.readouterr().err.splitlines()
    assert said == [
        "2 of 3 runs did not end well:",
        f"  {tmp_path}/b: RuntimeError: no room",
        "    python -m alignlab --config-dir mine w=0.2 'dataset.path=a b'",
        f"  {tmp_path}/c: did not start or was killed",
        "    python -m alignlab --config-dir mine w=0.3 'dataset.path=a b'",
    ]
    print_failures(jobs[:1], [])
    assert capfd.readouterr().err == "", "a sweep that went well says nothing"
