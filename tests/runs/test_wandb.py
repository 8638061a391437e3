"""wandb, offline and for real: one run a folder however often it is opened, its end, a sweep's front, and no key."""

import importlib.util
import sys
import time
from types import SimpleNamespace

import pytest

from alignlab.errors import without_secrets
from alignlab.front.collect import collect
from alignlab.front.summary import front_summary
from alignlab.front.table import write_csv
from alignlab.io.atomic import write_json
from alignlab.runs.publishing import publish_front, publish_result
from alignlab.runs.result import read_result
from alignlab.runs.trackers import TrackedRun
from alignlab.runs.tracking import tracking
from support.fronts import write_front
from support.trackers import KEYS, settings, wandb_records


def told(folder):
    """Ids of the folder's runs on wandb, and all that their files hold."""
    found = list((folder / "wandb").glob("offline-run-*"))
    ids = {path.name.split("-")[3] for path in found}  # offline-run-TIME-ID, and -1 for a second one of that second
    files = [file for path in found for file in path.rglob("*") if file.is_file()]
    return ids, b"".join(wandb_records(file) if file.suffix == ".wandb" else file.read_bytes() for file in files)


def told_in_the_end(folder, expected):
    """The same once the files hold what is expected: wandb's own process may write after a run has finished."""
    until = time.monotonic() + 30
    while True:
        ids, text = told(folder)
        if all(name in text for name in expected) or time.monotonic() > until:
            return ids, text
        time.sleep(0.2)


def test_an_address_loses_its_keys():
    assert without_secrets({"a": ["https://u:p@host:1/v1?k=1#f", 3, None]}) == {"a": ["https://host:1/v1", 3, None]}


@pytest.mark.skipif(importlib.util.find_spec("wandb") is None, reason="wandb is an extra")
def test_a_sweep_is_a_group_of_one_run_a_folder_and_a_summary(tmp_path, monkeypatch):
    monkeypatch.setenv("JUDGE_API_KEY", KEYS["environment"])
    monkeypatch.setattr(sys, "argv", ["alignlab", f"judge.key={KEYS['command']}"])
    runs = write_front(tmp_path, ws=(0.1, 0.9), prompts=2)
    step = SimpleNamespace(global_step=1, is_world_process_zero=True)
    with pytest.raises(KeyboardInterrupt), tracking(settings("w=0.1"), runs[0]) as tracker:
        tracker.on_log(None, step, None, {"loss": 0.5})
        raise KeyboardInterrupt
    with tracking(settings("w=0.1"), runs[0]) as tracker:
        tracker.on_log(None, SimpleNamespace(global_step=2, is_world_process_zero=True), None, {"loss": 0.25})
    (runs[0] / "adapter").mkdir()
    (runs[0] / "adapter" / "adapter_model.safetensors").write_bytes(b"planted-weights" * 100)
    for _ in range(2):
        publish_result(settings("w=0.1"), runs[0], runs[0], read_result(runs[0]))
    publish_result(settings("w=0.9"), runs[1], runs[1], read_result(runs[1]))
    expected = (
        b"adapter_model.safetensors",
        b"planted-group",
        b"planted-tag",
        b"final/helpful/mean",
        b"answer 0 of w=0.1 to 0",
        b"localhost:8000",
    )
    ids, text = told_in_the_end(runs[0], expected)
    assert len(ids) == 1, "killed, resumed and told its end: one run"
    assert len(list((runs[0] / "wandb").glob("offline-run-*"))) == 3, "and the end is told once"
    assert told(runs[1])[0] == set(), "a run that was not tracked is not published"
    for name in expected:
        assert name in text, name
    front = tmp_path / "front"
    front.mkdir()
    found = collect(runs)
    write_csv(found, front / "front.csv")
    write_json(front / "front.json", front_summary(found.points, exact=None, reference=None))
    publish_front(settings("front"), front)
    summary_ids, summary = told_in_the_end(front, (b"helpful_mean", b"planted-group"))
    assert len(summary_ids | ids) == 2
    assert b"helpful_mean" in summary
    assert b"planted-group" in summary
    for key in KEYS.values():
        assert key.encode() not in text + summary
    assert KEYS["user"] in settings("x").config["judge"]["base_url"], "control"


@pytest.mark.parametrize(("most_mb", "kept"), [(100.0, True), (0.001, False), (0.0, False)])
def test_an_adapter_is_kept_up_to_a_size(tmp_path, monkeypatch, most_mb, kept):
    (run,) = write_front(tmp_path, ws=(0.5,), prompts=1)
    (run / "wandb_id").write_text("known")
    (run / "adapter").mkdir()
    (run / "adapter" / "adapter_model.safetensors").write_bytes(b"0" * 2000)
    found = []

    class Kept(TrackedRun):
        def adapter(self, folder):
            found.append(folder)

    monkeypatch.setattr("alignlab.runs.publishing.tracked_run", lambda *_: Kept())
    publish_result(settings("w=0.5", adapter_mb=most_mb), run, run, read_result(run))
    assert found == ([run / "adapter"] if kept else [])
