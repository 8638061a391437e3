"""A sweep says how far it is after every run, and its page shows the points that are there."""

import shutil
from types import SimpleNamespace

import pytest

from alignlab.runs import sweep as module
from alignlab.runs.sweep import FRONT, Sweep, Timed
from support.fronts import write_front
from support.pages import check_safe


@pytest.fixture
def jobs(tmp_path):
    """Three jobs of a front; the folders of the last two are elsewhere until they have run."""
    plan = SimpleNamespace(
        algorithm=SimpleNamespace(uses=SimpleNamespace(after_sweep=FRONT, after_run=False, trains=True)),
        scorers={},
        runs=tmp_path / "runs",
        model=SimpleNamespace(settings=SimpleNamespace(name="tiny")),
        rows=SimpleNamespace(settings=SimpleNamespace(name="toy")),
    )
    runs = write_front(tmp_path / "runs" / "modpo")
    for folder in runs:
        (folder / "adapter").mkdir()
    for folder in runs[1:]:
        folder.rename(tmp_path / folder.name)
    return [(plan, folder) for folder in runs]


def test_a_line_and_the_page_after_every_run(jobs, tmp_path, monkeypatch):
    said = []
    monkeypatch.setattr("alignlab.runs.progress.say_progress", said.append)
    own = Sweep()
    monkeypatch.setattr(module, "sweep", own)
    own.begin(jobs)
    done_before = Timed(jobs[0][1])
    own.ended(40.0)
    (page,) = (tmp_path / "runs" / "front").rglob("front.html")
    assert said == [f"sweep: 1 of 3 runs, 40 s each, 1:20 left; so far: {page}"]
    shown = check_safe(page).data("data")
    assert [policy["w"] for policy in shown["policies"]] == ["0.1"]
    assert "1 of 3 runs are done" in " ".join(check_safe(page).texts)
    (tmp_path / "w=0.5").rename(jobs[1][1])
    own.page_due = 0.0
    own.ended(20.0)
    assert said[1].startswith("sweep: 2 of 3 runs, 30 s each, 0:30 left")
    assert len(check_safe(page).data("data")["policies"]) == 2, "the same page, rewritten"
    shutil.move(tmp_path / "w=0.9", jobs[2][1])
    own.ended(30.0)
    assert len(said) == 2, "the front itself comes now"
    done_before.end()
    assert len(own.ran) == 3, "a run that was done before tells nothing of how long one takes"


def test_the_page_takes_a_small_share_of_the_time(jobs, monkeypatch):
    now, written, own = [0.0], [], Sweep()

    def write_page():
        written.append(now[0])
        now[0] += 3.0

    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    monkeypatch.setattr("alignlab.runs.progress.say_progress", lambda line: None)
    own.begin(jobs)
    monkeypatch.setattr(own, "write_page", write_page)
    for at in (0.0, 50.0, 152.0, 154.0, 200.0, 308.0):
        now[0] = at
        own.ended(1.0)
    assert written == [0.0, 154.0, 308.0]


def test_what_comes_after_a_run_comes_once_a_sweep(jobs):
    done, own = [], Sweep()
    for folder in (jobs[0][1], jobs[0][1]):
        own.after_run(folder, lambda: done.append("alone"))
    own.begin(jobs)
    with pytest.raises(ZeroDivisionError):
        own.after_run(jobs[0][1], lambda: done.append(1 // 0))
    for folder in (jobs[0][1], jobs[0][1], jobs[1][1]):
        own.after_run(folder, lambda: done.append("sweep"))
    assert done == ["alone", "alone", "sweep", "sweep"], "what failed is done again, what is done is not"


def test_outside_of_a_sweep_nothing_is_said(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "sweep", Sweep())
    Timed(tmp_path).end()
    assert module.sweep.ran == []
