"""One console: progress of long work as bars or lines, quiet libraries, short notices."""

import logging
import os
import sys
import threading
import time
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

from alignlab.io.text import printable, printable_lines
from alignlab.runs.activity import Count, activity, open_in

TABLE_WIDTH = 120
"""Columns of a log that is no terminal: tables keep their shape there."""
LINE_SECONDS = 5.0
"""Without a terminal: shortest time between two lines of progress, and before a pass's first one."""
SILENT_SECONDS = 20.0
"""Without a terminal: time after which a line is due, whether or not anything was finished meanwhile. Ten seconds below
what is promised: on a busy machine, an import or a load holds Python up for seconds."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else TABLE_WIDTH)
Item = TypeVar("Item")
_bars_hidden = False
_printing = threading.Lock()
_last_line = time.monotonic()
_last_progress = -LINE_SECONDS
_alive: list[threading.Event] = []
"""The ends of whatever shows signs of life, the innermost last."""


def say(text: str) -> None:
    """A line for the person at the terminal, and for the job's log."""
    global _last_line
    _last_line = time.monotonic()
    text = printable_lines(text)
    console.out(text, highlight=False)  # print takes time in the square of a line's length
    logging.getLogger("alignlab").info(text)


def begin_silence() -> None:
    """Count silence from now on: a command begins."""
    global _last_line
    _last_line = time.monotonic()


def say_progress(text: str) -> None:
    """A line of progress that the job's log keeps; none less than LINE_SECONDS after the last one."""
    global _last_progress
    now = time.monotonic()
    if now >= _last_progress + LINE_SECONDS:
        _last_progress = now
        say(text)


def print_progress(line: str) -> None:
    """A line of progress, which no log keeps."""
    global _last_progress
    _last_progress = time.monotonic()
    console.print(printable(line), markup=False, soft_wrap=True)


def hide_bars(hidden: bool = True) -> None:
    """No bars and no lines of progress from now on: another process, or a table, shows how far the job is."""
    global _bars_hidden
    _bars_hidden = hidden


@contextmanager
def progress(label: str, total: int) -> Iterator[Count]:
    """Show how far long work is: a bar that vanishes in the end, or lines where the output is no terminal.

    The job of a sweep in a terminal is shown by the sweep's table, a launched one by the process that launched it.

    Args:
        label: the stage, e.g. `judging`.
        total: steps to be done.
    """
    with ExitStack() as stack:
        count = Count(label, total)
        if not _bars_hidden and console.is_terminal:
            count = _TerminalCount(label, total, stack.enter_context(_bars()))
        elif not _bars_hidden:
            stack.enter_context(_reporting(count))
        stack.enter_context(open_in(activity.counts, count))
        yield count


def _bars() -> Progress:
    columns = (
        TextColumn("{task.description:<28}", markup=False),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    return Progress(*columns, console=console, transient=True)


class _TerminalCount(Count):
    def __init__(self, label: str, total: int, bars: Progress) -> None:
        super().__init__(label, total)
        self._bars, self._task = bars, bars.add_task(printable(label), total=total)

    def advance(self, steps: int = 1, *, now: float | None = None) -> None:
        super().advance(steps, now=now)
        self._bars.advance(self._task, steps)


def line_of(count: Count, now: float) -> str:
    """`judging: 12 of 160, 0.4/s, 6:10 left`.

    Args:
        count: of a pass.
        now: by the monotonic clock, seconds.
    """
    rate, left = count.rate(now), count.left(now)
    counted = f"{count.label}: {count.done} of {count.total}"
    if left is None:
        return f"{counted}, {clock(count.seconds(now))} so far"
    shown = f"{rate:.3g}/s" if rate >= 0.1 else f"{1 / rate:.3g} s each"
    return f"{counted}, {shown}, {clock(left)} left"


@contextmanager
def _reporting(count: Count) -> Iterator[None]:
    """Print a count's line now and then, from a thread: a step may take longer than people wait for a sign."""
    over = threading.Event()
    reporter = threading.Thread(target=_report, args=(count, over), name="progress", daemon=True)
    reporter.start()
    try:
        yield
    finally:
        over.set()
        reporter.join()


def _report(count: Count, over: threading.Event) -> None:
    global _last_line
    own, gap = time.monotonic(), LINE_SECONDS
    while True:
        with _printing:
            now = time.monotonic()
            wait = _next_line(own, gap, last=_last_line) - now
            if wait <= 0 and not over.is_set():
                print_progress(line_of(count, now))
                _last_line, own, gap = now, now, min(2 * gap, SILENT_SECONDS)
                wait = LINE_SECONDS
        if over.wait(max(wait, 0.0)):
            return


@contextmanager
def signs_of_life(what: str = "run") -> Iterator[None]:
    """Print a line with the open stage after SILENT_SECONDS without one, where the output is no terminal.

    What counts no steps, such as loading a model, may take minutes on a busy machine. A command's signs give way to
    those of the run that it is at.

    Args:
        what: since when the line counts the time: since this began.
    """
    if _bars_hidden or console.is_terminal:
        yield
        return
    over = threading.Event()
    sign = threading.Thread(target=_show_life, args=(over, what), name="signs of life", daemon=True)
    _alive.append(over)
    sign.start()
    try:
        yield
    finally:
        over.set()
        sign.join()
        _alive.remove(over)


def _show_life(over: threading.Event, what: str) -> None:
    global _last_line
    begun = time.monotonic()
    while True:
        with _printing:
            now = time.monotonic()
            wait = _last_line + SILENT_SECONDS - now
            if activity.counts or _alive[-1] is not over:  # an open pass prints its own lines, and so does a run
                wait = LINE_SECONDS / 5
            elif wait <= 0 and not over.is_set() and not _bars_hidden:
                stage = next(reversed(activity.stages), "preparing")
                print_progress(f"{stage}: at work, {clock(now - begun)} since the {what} began")
                _last_line, wait = now, SILENT_SECONDS
        if over.wait(max(wait, LINE_SECONDS / 5)):
            return


def _next_line(own: float, gap: float, *, last: float) -> float:
    """When a pass prints its next line.

    Args:
        own: time of its last line, or of its start.
        gap: seconds that it waits after that one.
        last: time of the last line of all.
    """
    return max(last + LINE_SECONDS, min(own + gap, last + SILENT_SECONDS))


def clock(seconds: float) -> str:
    """Seconds as m:ss or h:mm:ss."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def track(items: Sequence[Item], *, label: str) -> Iterable[Item]:
    """Iterate while progress is shown."""
    with progress(label, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()


def quiet_libraries() -> None:
    """Silence what libraries print about themselves; their warnings go to the job's log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that no run here asks for
    logging.captureWarnings(True)
    warnings.simplefilter("default")
