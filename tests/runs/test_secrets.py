"""A key, wherever it comes from, is in no file of a run, a failed run or a sweep, and not in what they print."""

import itertools
import json
import logging
import sys
import types

import pytest

from alignlab.cli import main
from alignlab.runs import folder as folder_module
from alignlab.runs import runner

OWN = "whatever-this-service-calls-a-key-0123456789"
"""Known by its variable alone."""
KEYS = {
    "OpenAI": "sk-proj-0123456789abcdefghijklmn",
    "the hub": "hf_0123456789abcdefghijklmnopqr",
    "wandb": "0123456789abcdef0123456789abcdef01234567",
    "AWS": "AKIA0123456789ABCDEF",
    "GitHub": "ghp_0123456789abcdefghijklmnopqrstuvwxyz",
    "a variable": OWN,
}
JUDGED = ("algorithm=course_correction", "judge=openai", "judge.model=m")
TYPED = {
    "a value": ("tracker.project=KEY",),
    "a name": ("model.name=KEY",),
    "a number": ("seed=KEY",),
    "an unknown setting": ("judge.api_key=KEY",),
    "an added setting": ("++tracker.api_key=KEY",),
    "the name of a variable": (*JUDGED, "judge.api_key_env=KEY"),
    "a password in an address": (*JUDGED, "judge.base_url=https://me:KEY@host/v1"),
    "a query of an address": (*JUDGED, "judge.base_url=https://host/v1?key=KEY"),
    "a path of an address": (*JUDGED, "judge.base_url=https://host/KEY/v1"),
    "a body": ("algorithm=course_correction", "generator=server", "generator.extra_body={api_key: KEY}"),
    "a flag": ("--api-key=KEY",),
    "a bare word": ("KEY",),
    "a sweep": ("-m", "w=0.3,0.7", "tracker.project=KEY"),
    "a swept value": ("-m", "tracker.project=a,KEY"),
}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """An empty working folder; jobs take no time."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("MY_SERVICE_KEY", OWN)
    light = types.SimpleNamespace(forget_models=lambda: None)
    monkeypatch.setitem(sys.modules, "alignlab.prerequisites.models", light)
    return tmp_path


def job_of(monkeypatch, run):
    monkeypatch.setattr(runner, "load_job", lambda name: types.SimpleNamespace(run=run))


def does_nothing(plan, run, outcome):
    pass


def hits(root, capfd, key):
    """What holds a key: files, names of files, what was printed."""
    said = capfd.readouterr()
    found = [name for name, text in (("stdout", said.out), ("stderr", said.err)) if key in text]
    files = [path for path in root.rglob("*") if path.is_file()]
    return found + [str(path) for path in files if key in str(path) or key.encode() in path.read_bytes()]


@pytest.mark.parametrize(
    ("where", "key"),
    [*zip(TYPED, itertools.cycle(KEYS.values())), *(("a value", key) for key in KEYS.values())],
)
def test_a_typed_key_is_refused_unseen(here, capfd, monkeypatch, key, where):
    job_of(monkeypatch, does_nothing)
    assert main([part.replace("KEY", key) for part in TYPED[where]] + ["paths.cache=cache"]) == 2
    assert hits(here, capfd, key) == []
    assert not (here / "runs").exists()


@pytest.mark.parametrize("key", KEYS.values(), ids=list(KEYS))
def test_a_key_in_a_file_is_refused_unseen(here, capfd, monkeypatch, key):
    job_of(monkeypatch, does_nothing)
    (here / "mine" / "experiment").mkdir(parents=True)
    file = here / "mine" / "experiment" / "x.yaml"
    file.write_text(f"# @package _global_\ntracker: {{project: '{key}'}}\n")
    assert main(["--config-dir", "mine", "experiment=x"]) == 2
    file.unlink()
    assert hits(here, capfd, key) == []


@pytest.mark.parametrize(
    ("given", "key"),
    [*((("w=0.3",), key) for key in KEYS.values()), (("-m", "w=0.3,0.7"), OWN)],
    ids=[*KEYS, "a sweep"],
)
def test_a_key_in_an_error_is_masked(here, capfd, monkeypatch, key, given):
    """As a client's error holds that names the request's headers; the log has its traceback too."""

    def fails(plan, run, outcome):
        logging.getLogger("httpx").warning("asks with Bearer %s", key)
        raise RuntimeError(f"401 for {{'Authorization': '{key}'}}")

    job_of(monkeypatch, fails)
    assert main([*given, "paths.cache=cache"]) == 1
    assert hits(here, capfd, key) == []
    records = [json.loads(file.read_text()) for file in (here / "runs").rglob("result.json")]
    assert records
    assert all("RuntimeError: 401 for {'Authorization': '***'}" in record["error"] for record in records)
    assert "Traceback" in next((here / "runs").rglob("job.log")).read_text()


def test_without_the_mask_it_would_be_seen(here, capfd, monkeypatch):
    """Control."""

    def fails(plan, run, outcome):
        raise RuntimeError(OWN)

    job_of(monkeypatch, fails)
    monkeypatch.setattr(folder_module, "masked", lambda text: text)
    assert main(["w=0.3", "paths.cache=cache"]) == 1
    found = hits(here, capfd, OWN)
    assert {"stderr"} < {*found}
    assert any(name.endswith("result.json") for name in found)
    assert any(name.endswith("job.log") for name in found)
