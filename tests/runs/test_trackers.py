"""trackio and TensorBoard: what wandb is told, read by their own libraries; a resumed run is one run."""

import sys
from dataclasses import replace
from types import SimpleNamespace

import pytest

from alignlab.front.collect import collect
from alignlab.front.summary import front_summary
from alignlab.front.table import write_csv
from alignlab.io.atomic import write_json
from alignlab.runs.publishing import publish_front, publish_result
from alignlab.runs.result import read_result
from alignlab.runs.tracking import tracking
from support.fronts import write_front
from support.trackers import KEYS, settings

EXTRA = "is an extra, which make everything installs"


def state(step):
    return SimpleNamespace(global_step=step, is_world_process_zero=True)


def train(settings, folder, steps, *, start=0):
    """Log a loss of 1 / step at some steps, going on from one."""
    with tracking(settings, folder) as tracker:
        tracker.on_train_begin(None, state(start), None)
        for step in steps:
            tracker.on_log(None, state(step), None, {"loss": 1 / step})
            if step == 3 and not start:
                raise KeyboardInterrupt


def sweep(tmp_path, kind):
    """Two runs and their front on a tracker; the first run is broken off and resumed from a checkpoint."""
    runs = write_front(tmp_path / "runs", ws=(0.1, 0.9), prompts=2)
    of = [settings(f"w={w}", kind) for w in (0.1, 0.9)]
    with pytest.raises(KeyboardInterrupt):
        train(of[0], runs[0], (1, 2, 3))
    train(of[0], runs[0], (3, 4), start=2)
    train(of[1], runs[1], (1, 2))
    for own, run in zip(of, runs, strict=True):
        for _ in range(2):
            publish_result(own, run, run, read_result(run))
    front = tmp_path / "front"
    front.mkdir()
    found = collect(runs)
    write_csv(found, front / "front.csv")
    write_json(front / "front.json", front_summary(found.points, exact=None, reference=None))
    draw(front / "front.png")
    publish_front(replace(of[0], name="front"), front)
    return runs, front


def draw(path):
    from PIL import Image

    Image.new("RGB", (4, 3), "red").save(path)


@pytest.fixture
def trackio(tmp_path, monkeypatch):
    """The library with a database of its own; it reads the folder's name when it is imported."""
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    for name in [name for name in sys.modules if name.split(".")[0] == "trackio"]:
        monkeypatch.delitem(sys.modules, name)
    return pytest.importorskip("trackio", reason=f"trackio {EXTRA}")


def test_trackio_holds_what_wandb_holds(tmp_path, trackio, monkeypatch, capsys):
    monkeypatch.setenv("JUDGE_API_KEY", KEYS["environment"])
    monkeypatch.setattr(sys, "argv", ["alignlab", f"judge.key={KEYS['command']}"])
    runs, _ = sweep(tmp_path, "trackio")
    found = {run.name.rpartition(" ")[0]: run for run in trackio.Api().runs("planted-project")}
    assert sorted(found) == ["front", "w=0.1", "w=0.9"]
    assert len(list(trackio.Api().runs("planted-project"))) == 3, "a resumed run is one run, and its end is no other"
    run = found["w=0.1"]
    logs = trackio.SQLiteStorage.get_logs("planted-project", run.name, run_id=run.id)
    assert [(row["step"], row["loss"]) for row in logs if "loss" in row] == [(n, 1 / n) for n in (1, 2, 3, 4)]
    (end,) = [row for row in logs if "final/helpful/mean" in row]
    assert end["final/helpful/mean"] == read_result(runs[0]).metrics["helpful"]["mean"]
    assert end["final/helpful/low"] == read_result(runs[0]).metrics["helpful"]["ci95"][0]
    (table,) = [row["samples"] for row in logs if "samples" in row]
    assert "answer 0 of w=0.1 to 0" in str(table)
    assert run.config["judge"]["base_url"] == "http://localhost:8000/v1"
    assert run.config["tags"] == ["planted-tag"]
    front = found["front"]
    logs = trackio.SQLiteStorage.get_logs("planted-project", front.name, run_id=front.id)
    assert "helpful_mean" in str(logs)
    assert any("front_picture" in row for row in logs)
    files = b"".join(file.read_bytes() for file in (tmp_path / "trackio").rglob("*") if file.is_file())
    assert b"planted-group" in files
    for key in KEYS.values():
        assert key.encode() not in files
    assert capsys.readouterr().out == ""


def test_tensorboard_has_scalars_and_the_picture(tmp_path):
    pytest.importorskip("tensorboard", reason=f"tensorboard {EXTRA}")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    runs, front = sweep(tmp_path, "tensorboard")
    read = EventAccumulator(str(runs[0] / "tensorboard")).Reload()
    losses = {one.step: one.value for one in read.Scalars("loss")}
    assert losses == pytest.approx({n: 1 / n for n in (1, 2, 3, 4)})
    recorded = read_result(runs[0]).metrics["helpful"]["mean"]
    assert [one.value for one in read.Scalars("final/helpful/mean")] == pytest.approx([recorded])
    (picture,) = EventAccumulator(str(front / "tensorboard")).Reload().Images("front_picture")
    assert (picture.width, picture.height) == (4, 3)
