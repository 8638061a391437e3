"""A sweep's runs, wherever they run, as a table that fits the terminal and as lines; hostile text stays text."""

import io
import json
import os
import re
import subprocess
import sys
import threading
import time
from types import SimpleNamespace

import pytest
from rich.console import Console

from alignlab.runs import watch as module
from alignlab.runs.activity import PROGRESS, Activity, Snapshot, activity, at_work
from alignlab.runs.overview import Overview, RunState, names_of
from alignlab.runs.overview_table import overview_table
from alignlab.runs.progress import progress
from support.commands import REPOSITORY
from support.fronts import write_front
from support.terminal import terminal

HOSTILE = "\x1b[2J[red]x[/red]\r\n\u202eevil\x00" + "y" * 500


@pytest.fixture
def jobs(tmp_path):
    """Three jobs of which none has begun."""
    uses = SimpleNamespace(trains=True)
    plan = SimpleNamespace(algorithm=SimpleNamespace(uses=uses, name="modpo"), scorers={}, force=False)
    return [(plan, tmp_path / f"w={w}") for w in (0.1, 0.5, 0.9)]


def test_states_of_runs_in_other_processes(jobs, tmp_path, monkeypatch):
    monkeypatch.setattr("alignlab.runs.activity.TELL_SECONDS", 0.05)
    overview = Overview(jobs, ["a", "b", "c"])
    assert [state.status for state in overview.states()] == ["waiting"] * 3
    with at_work(jobs[1][1], launched=True):
        with progress("training", 60) as count:
            count.advance(12)
            activity.log({"loss": 0.5, "rewards/accuracies": 0.75, "epoch": 1.0, "grad_norm": float("nan")})
            wait_for(lambda: told(jobs[1][1]).get("done") == 12)
            activity.folder = None  # as if it ran elsewhere: only the file tells
            (_, running, _) = overview.states()
        assert running.status == "running"
        assert running.line().startswith("b training 12 of 60")
        assert running.metrics == {"loss": 0.5, "accuracies": 0.75}
        assert "sweep: 0 of 3 runs done, 0:0" in overview.line()
    assert not (jobs[1][1] / PROGRESS).exists()
    with pytest.raises(RuntimeError), at_work(jobs[2][1], launched=True):
        raise RuntimeError("broken\nin two lines")
    write_front(tmp_path / "made")
    (tmp_path / "made" / "w=0.1").rename(tmp_path / "w=0.1")
    first, _, last = overview.states()
    assert (first.status, set(first.metrics)) == ("done", {"better", "safer"})
    assert (last.status, last.now.error) == ("failed", "broken")
    assert overview.summary(overview.states()).startswith("1 of 3 runs done, 1 failed, ")


def test_what_an_earlier_sweep_left_is_no_end_of_this_one(jobs, tmp_path):
    write_front(tmp_path)
    failed = tmp_path / "w=0.5" / "result.json"
    failed.write_text(json.dumps({**json.loads(failed.read_text()), "status": "failed", "error": "then"}))
    (tmp_path / "w=0.9" / PROGRESS).write_text(json.dumps({"stage": "training"}))
    for file in (failed, tmp_path / "w=0.9" / PROGRESS):
        os.utime(file, (time.time() - 100,) * 2)
    overview = Overview(jobs, ["a", "b", "c"])
    assert [state.status for state in overview.states()] == ["done", "waiting", "done"]
    failed.touch()
    os.utime(failed, (time.time() + 1,) * 2)
    assert [state.status for state in overview.states()] == ["done", "failed", "done"]


@pytest.mark.parametrize("text", ["", "[]", "{", '{"done": "x", "total": NaN, "metrics": [1], "left": true}'])
def test_a_torn_or_foreign_file_tells_nothing_wrong(text):
    try:
        record = json.loads(text)
    except ValueError:
        return
    assert Snapshot.from_json(record) == Snapshot()


def test_jobs_are_named_by_what_tells_them_apart(jobs):
    batch = [["a=1", "w=0.1"], ["a=1", "w=0.5", "seed=2"], ["a=1"]]
    assert names_of(batch, jobs) == ["w=0.1", "w=0.5 seed=2", "modpo w=0.9"]


STATES = [
    RunState("w=0.1", "done", seconds=130.0, metrics={"helpful": 0.512}),
    RunState("w=0.3", "failed", Snapshot(error=HOSTILE)),
    RunState(f"w=0.5 {HOSTILE}", "running", Snapshot(HOSTILE, 12, 60, 130.0), metrics={HOSTILE: 1.0}),
    *(RunState(f"w=0.{n}", "waiting") for n in range(60, 90)),
]


@pytest.mark.parametrize(("columns", "lines"), [(160, 60), (100, 24), (60, 12), (40, 10), (30, 10)])
def test_the_table_fits_and_shows_hostile_text_as_text(columns, lines):
    stream = io.StringIO()
    console = Console(file=stream, force_terminal=True, color_system=None, width=columns, height=lines)
    console.print(overview_table(STATES, "1 of 33 runs done", os.terminal_size((columns, lines))))
    shown = stream.getvalue()
    assert shown.count("\n") < lines
    assert max(map(len, shown.splitlines())) <= columns
    assert all(char == "\n" or char.isprintable() for char in shown)
    assert "failed" in shown
    assert "w=0.5" in shown
    if columns >= 100:
        assert "took 2:10" in shown
        assert "12/60" in shown
        assert "\\x1b[2J[red]" in shown, "as a code, markup as it is"
        assert "helpful 0.512" in shown
    if columns < 60:
        assert re.search(r"^w=0.5 .*20 %, ", shown, re.MULTILINE), "how far it is, in a line that the eye can follow"
        assert "┃" not in shown
    elif columns < 76:
        assert re.search(r"failed: .*…", shown), "without a column of metrics the error is beside it"
    if lines < 40:
        assert "more not shown" in " ".join(shown.split()), "control: not all rows fit"


def test_launched_runs_are_lines_where_the_output_is_no_terminal(jobs, monkeypatch, capsys):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.02)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)
    jobs[0][1].mkdir()
    overview = Overview(jobs, [f"w=0.1{HOSTILE[:20]}", "b", "c"])
    (jobs[0][1] / PROGRESS).write_text(json.dumps({"stage": "judging", "done": 3, "total": 80, "left": 61}))
    said = ""

    def lines():
        nonlocal said
        said += capsys.readouterr().out
        return said.count("judging 3 of 80, 1:01 left") >= 2

    with module.watched(overview, launched=True, page=lambda: None):
        wait_for(lines)
    assert "\x1b" not in said
    with module.watched(overview, launched=False, page=lambda: None):
        time.sleep(0.2)
    assert capsys.readouterr().out == "", "a run of this process prints its own lines"


def test_an_error_of_the_display_is_logged_and_the_sweep_goes_on(jobs, monkeypatch, caplog):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.01)
    overview = Overview(jobs, ["a", "b", "c"])
    monkeypatch.setattr(overview, "line", lambda: 1 / 0)
    ran = []
    with module.watched(overview, launched=True, page=lambda: None):
        wait_for(lambda: "cannot be shown" in caplog.text)
        ran.append("the rest of the sweep")
    assert ran == ["the rest of the sweep"]
    assert "ZeroDivisionError" in caplog.text
    assert "sweep" not in {thread.name for thread in threading.enumerate()}, "the display ends with the sweep"


def test_colours_and_bars_drawn_over_themselves_become_plain_lines():
    caught = "\x1b[36m(pid=1)\x1b[0m hello\r\nLoading:   0%\rLoading: 100%\n\x1b]0;title\x07\n"
    assert module.plain_lines(caught) == "(pid=1) hello\nLoading: 100%\n\\x1b]0;title\\x07"


OWNER = """
import logging, os, sys, warnings
from types import SimpleNamespace
from pathlib import Path
from alignlab.runs.overview import Overview
from alignlab.runs.watch import watched
plan = SimpleNamespace(algorithm=SimpleNamespace(name="modpo"), scorers={}, force=False)
overview = Overview([(plan, Path("none"))], ["w=0.1"])
with watched(overview, launched=False, page=lambda: None):
    input()
    os.system("echo from a child; echo error of a child >&2")
    warnings.warn("a warning")
    logging.error("a log line")
    print("\\x1b[2Jhostile \\x1b]0;title\\x07")
    print("no line end", end="")
    if sys.argv[1] == "raise":
        raise SystemExit(3)
    if sys.argv[1] == "kill":
        os.kill(os.getpid(), 9)
print("afterwards")
"""


@pytest.mark.parametrize("how", ["end", "raise"])
def test_whatever_is_written_and_typed_meanwhile_the_table_stays_whole(how, tmp_path):
    with terminal(columns=100) as shown:
        command = [sys.executable, "-c", OWNER, how]
        with subprocess.Popen(
            command,
            stdin=shown.slave,
            stdout=shown.slave,
            stderr=shown.slave,
            cwd=tmp_path,
            env=dict(os.environ, TERM="xterm", PYTHONPATH=str(REPOSITORY)),
        ) as child:
            wait_for(lambda: "waiting" in shown.text)
            os.write(shown.master, b"typed\n")
            assert child.wait() == (3 if how == "raise" else 0)
        wait_for(lambda: ("no line end" if how == "raise" else "afterwards") in shown.text)
        assert shown.is_restored()
        screen = shown.screen()
    for line in ("from a child", "error of a child", "a warning", "a log line", "no line end"):
        assert screen.index(line) < screen.index("last metrics"), line
    assert screen.count("last metrics") == 1
    assert "\\x1b[2Jhostile \\x1b]0;title\\x07" in screen
    assert "typed" not in screen, "keys are not echoed"


def test_a_killed_sweep_leaves_the_cursor_where_it_can_be_seen(tmp_path):
    """Nothing can be given back after SIGKILL, so nothing of the terminal's display is taken."""
    with terminal(columns=100) as shown:
        command = [sys.executable, "-c", OWNER, "kill"]
        ends = dict.fromkeys(("stdin", "stdout", "stderr"), shown.slave)
        env = dict(os.environ, TERM="xterm", PYTHONPATH=str(REPOSITORY))
        with subprocess.Popen(command, cwd=tmp_path, env=env, **ends) as child:
            wait_for(lambda: "\x1b[1A" in shown.text)
            os.write(shown.master, b"typed\n")
            assert child.wait() == -9
        assert "waiting" in shown.text
        assert "\x1b[?25l" not in shown.text


def told(folder):
    return json.loads((folder / PROGRESS).read_text()) if (folder / PROGRESS).exists() else {}


def wait_for(found):
    end = time.monotonic() + 20
    while not found() and time.monotonic() < end:
        time.sleep(0.01)
    assert found()


def test_an_activity_shows_the_innermost_pass():
    own = Activity()
    own.stages += ["prerequisites", "training"]
    assert own.snapshot() == Snapshot("training")
