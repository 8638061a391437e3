"""Progress where the output is no terminal: lines with stage, count, rate and time left, 5 to 30 seconds apart."""

import itertools
import threading
import time
from types import SimpleNamespace

import pytest

from alignlab import cli
from alignlab.errors import ConfigError
from alignlab.runs import progress as module
from alignlab.runs.activity import Count, activity, open_in
from alignlab.runs.progress import (
    LINE_SECONDS,
    SILENT_SECONDS,
    _next_line,
    line_of,
    progress,
    say,
    signs_of_life,
    track,
)


def test_a_line_has_stage_count_rate_and_time_left():
    count = Count("judging", 160, now=0.0)
    assert line_of(count, 7.0) == "judging: 0 of 160, 0:07 so far"
    count.advance(10, now=10.0)
    assert line_of(count, 20.0) == "judging: 10 of 160, 0.5/s, 5:00 left"
    count.advance(10, now=20.0)
    assert line_of(count, 20.0) == "judging: 20 of 160, 1/s, 2:20 left", "the rate since the first step was done"
    assert line_of(count, 220.0) == "judging: 20 of 160, 21 s each, 49:00 left"


def test_the_steps_of_an_earlier_attempt_do_not_count_as_fast_ones():
    count = Count("training", 1000, now=0.0)
    count.advance(900, now=2.0)
    count.advance(1, now=4.0)
    assert line_of(count, 4.0) == "training: 901 of 1000, 0.5/s, 3:18 left"


@pytest.mark.parametrize("step", [0.3, 4.0, 70.0])
def test_lines_are_between_5_and_30_seconds_apart(step):
    """Passes of a given length, one after the other, for ten minutes of an imagined clock."""
    last, lines, now = 0.0, [0.0], 0.0
    while now < 600:
        own, gap, end = now, LINE_SECONDS, now + step
        while (due := max(_next_line(own, gap, last=last), now)) < end:
            last = own = now = due
            lines.append(due)
            gap = min(2 * gap, SILENT_SECONDS)
        now = end
    gaps = [later - earlier for earlier, later in itertools.pairwise(lines)]
    assert len(gaps) > 15
    assert min(gaps) >= 5
    assert max(gaps) < 25, "a busy machine holds a line up for some seconds"


@pytest.fixture
def fast(monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0.02)
    monkeypatch.setattr(module, "SILENT_SECONDS", 0.05)
    monkeypatch.setattr(module, "_last_line", time.monotonic())


def wait_for(text, times, capsys):
    """Everything that is printed until a text was printed so many times."""
    end, said = time.monotonic() + 20, ""
    while said.count(text) < times and time.monotonic() < end:
        time.sleep(0.01)
        said += capsys.readouterr().out
    assert said.count(text) >= times
    return said


def test_a_long_step_is_no_silence(fast, capsys):
    with progress("reference", 3):
        said = wait_for("reference: 0 of 3, ", 2, capsys)
    said += capsys.readouterr().out
    assert all(line.startswith("reference: 0 of 3, ") for line in said.splitlines()), "and no other line"


def test_a_stage_that_counts_nothing_is_no_silence(fast, capsys):
    with signs_of_life(), open_in(activity.stages, "loading"):
        wait_for("loading: at work, 0:0", 2, capsys)
    assert "signs of life" not in {thread.name for thread in threading.enumerate()}


def test_a_command_gives_way_to_its_run(fast, capsys):
    with signs_of_life("command"):
        wait_for("preparing: at work, 0:00 since the command began", 1, capsys)
        with signs_of_life():
            time.sleep(0.1)  # one of the command's may be on its way
            capsys.readouterr()
            said = wait_for("since the run began", 3, capsys)
            assert "command" not in said
        wait_for("since the command began", 1, capsys)


@pytest.mark.parametrize("flags", [(), ("--cfg", "job")])
def test_a_command_that_is_slow_to_begin_says_so(fast, flags, monkeypatch, capsys):
    def slow(_):
        time.sleep(0.4)
        raise ConfigError("w=2: made up")

    monkeypatch.setattr(cli, "_check", slow)
    assert cli.main(["w=0.5", *flags]) == 2
    said = capsys.readouterr().out
    assert ("preparing: at work" in said) == (not flags), "what --cfg prints is a file"


def test_a_sweeps_line_keeps_its_distance(monkeypatch, capsys):
    now = [100.0]
    monkeypatch.setattr(module, "time", SimpleNamespace(monotonic=lambda: now[0]))
    module.print_progress("of a pass")
    for at in (103.0, 105.0, 109.0, 110.0):
        now[0] = at
        module.say_progress(f"sweep at {at:.0f}")
    assert capsys.readouterr().out.split("\n")[:-1] == ["of a pass", "sweep at 105", "sweep at 110"]


def test_a_pass_prints_its_own_lines(fast, capsys):
    with open_in(activity.counts, Count("judging", 3)), signs_of_life():
        time.sleep(0.2)
    assert capsys.readouterr().out == ""


def test_where_something_is_said_there_is_no_sign(monkeypatch, capsys):
    monkeypatch.setattr(module, "_last_line", time.monotonic())
    with signs_of_life():
        time.sleep(0.05)
    assert capsys.readouterr().out == ""


def test_a_short_pass_says_nothing(monkeypatch, capsys):
    monkeypatch.setattr(module, "_last_line", time.monotonic())
    assert list(track([1, 2], label="short")) == [1, 2]
    say("done")
    assert capsys.readouterr().out == "done\n"


def test_hidden_bars_are_no_lines_either(fast, monkeypatch, capsys):
    monkeypatch.setattr(module, "_bars_hidden", True)
    with progress("hidden", 3) as bar:
        time.sleep(0.2)
        bar.advance()
    assert capsys.readouterr().out == ""
