"""`--doctor`: what a machine lacks for a run is in the table, and only what would fail it ends in 2."""

import json
import socket
import subprocess
import types

import pytest

from alignlab import cli
from alignlab.checks import doctor
from alignlab.config.hydra.compose import composing, read_command, register, run_config
from alignlab.config.plan import plan_of

register()


def plan(*overrides):
    with composing():
        (job,) = read_command("config", list(overrides), multirun=False).jobs()
        return plan_of(run_config(job))


@pytest.fixture(scope="module")
def toy():
    return plan()


@pytest.fixture
def torch_says(monkeypatch):
    """What torch would say of the machine."""

    def says(gpus=0, free=80 << 30, bf16=True):
        told = {"version": "2.13", "gpus": gpus, "free": [free] * gpus, "bf16": bf16}
        done = types.SimpleNamespace(stdout=f"noise\n{json.dumps(told)}\n")
        monkeypatch.setattr(doctor.subprocess, "run", lambda *_, **__: done)

    says()
    return says


def found(plan, tmp_path, monkeypatch=None):
    return {one.name: one for one in doctor._findings(plan, tmp_path / "runs" / "one")}


def test_a_machine_that_does(toy, torch_says, tmp_path, capsys):
    rows = found(toy, tmp_path)
    assert {one.status for one in rows.values()} == {"ok"}, rows
    assert set(rows) == {"versions", "devices", "memory", "run folder", "paths.cache"}
    assert doctor.examine(toy, tmp_path) == 0
    assert "versions" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("says", "name", "words"),
    [
        ({"gpus": 2}, "devices", "sees 2 GPUs, hardware.processes=8"),
        ({"gpus": 8, "bf16": False}, "bf16", "hardware.bf16=false"),
        ({"gpus": 8, "free": 1 << 10}, "GPU memory", "free, the weights alone take"),
    ],
)
def test_gpus_that_do_not(torch_says, tmp_path, says, name, words):
    torch_says(**says)
    rows = found(plan("hardware=gpus_8"), tmp_path)
    assert rows[name].status == "fails"
    assert words in rows[name].said


def test_a_torch_that_hangs(toy, tmp_path, monkeypatch):
    def hang(*_, **__):
        raise subprocess.TimeoutExpired("python", 1)

    monkeypatch.setattr(doctor.subprocess, "run", hang)
    assert found(toy, tmp_path)["torch"].status == "fails"


def test_memory_disk_and_versions_that_do_not(toy, torch_says, tmp_path, monkeypatch):
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1 << 20))
    monkeypatch.setattr(doctor.shutil, "disk_usage", lambda path: types.SimpleNamespace(free=1 << 20))
    bounds = ["torch>=99", "no-such-package>=1", "numpy>=1", "odd; extra == 'dev'"]
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: bounds)
    rows = found(toy, tmp_path)
    assert {rows[name].status for name in ("memory", "run folder", "versions")} == {"fails"}
    assert "torch" in rows["versions"].said
    assert "no-such-package is missing" in rows["versions"].said
    assert "numpy" not in rows["versions"].said
    assert doctor.examine(toy, tmp_path) >= 3


def test_a_hub_that_does_not_answer_is_a_warning(torch_says, tmp_path, monkeypatch):
    monkeypatch.delenv("HF_HUB_OFFLINE", raising=False)
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    rows = found(plan("model=smollm2_135m_instruct"), tmp_path)
    assert (rows["hub"].status, rows["memory"].status) == ("warning", "warning")
    assert "model.path" in rows["hub"].said


def test_a_judge_must_listen(torch_says, tmp_path):
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        url = f"http://127.0.0.1:{server.getsockname()[1]}/v1"
        judged = ("algorithm=course_correction", "judge=openai", "judge.model=m", f"judge.base_url={url}")
        assert found(plan(*judged), tmp_path)["judge"].status == "ok"
    assert found(plan(*judged), tmp_path)["judge"].status == "fails"


@pytest.mark.parametrize("word", ["--doctor", "algorithm=doctor"])
def test_the_command_line_ends_in_2_where_the_run_would_fail(word, torch_says, tmp_path, monkeypatch, capsys):
    arguments = [word, f"paths.runs={tmp_path}/runs", f"paths.cache={tmp_path}/cache"]
    assert cli.main(arguments) == 0
    assert not list(tmp_path.iterdir()), "nothing is run and nothing left"
    monkeypatch.setattr(doctor.psutil, "virtual_memory", lambda: types.SimpleNamespace(available=1 << 20))
    assert cli.main(arguments) == 2
    assert "1 of these would make the run fail" in capsys.readouterr().err
