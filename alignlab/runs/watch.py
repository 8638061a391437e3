"""Shows a sweep while it runs: one live table in a terminal; of launched runs, lines where the output is none."""

import logging
import re
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

from rich.console import Console
from rich.live import Live

from alignlab.io.text import printable_lines
from alignlab.runs.overview import ENDED, Overview, RunState
from alignlab.runs.overview_table import overview_table
from alignlab.runs.progress import LINE_SECONDS, SILENT_SECONDS, hide_bars, print_progress
from alignlab.runs.terminal import Terminal, can_be_owned, owned_terminal

REFRESH_SECONDS = 0.5
_COLOUR = re.compile(r"\x1b\[[\d;]*m")


@contextmanager
def watched(overview: Overview, *, launched: bool, page: Callable[[], Path | None]) -> Iterator[None]:
    """Show a sweep's runs until the block ends: a live table, or lines; nothing where the runs print lines themselves.

    Args:
        overview: of the runs.
        launched: whether they run in other processes.
        page: brings the sweep's page up to date, from runs that have ended, and returns it.
    """
    if not can_be_owned():
        with _lines(overview, page) if launched else ExitStack():
            yield
        return
    hide_bars()
    try:
        with owned_terminal() as terminal, _table(overview, terminal, page if launched else None):
            yield
    finally:
        hide_bars(False)


@contextmanager
def _every(seconds: float, look: Callable[[], object]) -> Iterator[None]:
    """Call a function again and again, in a thread."""
    over = threading.Event()

    def keep_looking() -> None:
        while not over.wait(seconds):
            try:
                look()
            except Exception:  # the runs are none the worse for it
                logging.getLogger("alignlab").exception("the sweep's progress cannot be shown")

    thread = threading.Thread(target=keep_looking, name="sweep", daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join()


class _Page:
    """Rewrites the sweep's page after every run that ends."""

    def __init__(self, write: Callable[[], Path | None], ended: int) -> None:
        self._write, self._ended = write, ended

    def look(self, states: Sequence[RunState]) -> None:
        """Rewrite it where more runs have ended than at the last look."""
        ended = sum(state.status in ENDED for state in states)
        if ended > self._ended and ended < len(states):
            self._write()
        self._ended = ended


@contextmanager
def _lines(overview: Overview, page: Callable[[], Path | None]) -> Iterator[None]:
    """A line every 5 to 20 seconds: launched runs print none."""
    due, gap = time.monotonic() + LINE_SECONDS, LINE_SECONDS
    pages = _Page(page, sum(state.status in ENDED for state in overview.states()))

    def look() -> None:
        """Print a line, and rewrite the page, if one is due."""
        nonlocal due, gap
        if time.monotonic() < due:
            return
        line = overview.line()
        if line is not None:
            print_progress(line)
        gap = min(2 * gap, SILENT_SECONDS)
        due = time.monotonic() + gap
        pages.look(overview.states())

    with _every(min(1.0, LINE_SECONDS), look):
        yield


def plain_lines(caught: str) -> str:
    """What was written as lines without colours; of a bar that was drawn over itself its last state."""
    lines = _COLOUR.sub("", caught).rstrip("\n").split("\n")
    return printable_lines("\n".join(line.rstrip("\r").rpartition("\r")[2] for line in lines))


class _WithCursor(Console):
    """A console that leaves the cursor alone: whoever is killed cannot show it again."""

    def show_cursor(self, show: bool = True) -> bool:
        """Nothing."""
        return False


@contextmanager
def _table(overview: Overview, terminal: Terminal, page: Callable[[], Path | None] | None) -> Iterator[None]:
    """The live table; its last state stays on the screen.

    Args:
        overview: of the runs.
        terminal: where it is drawn.
        page: rewrites the sweep's page; None where the runs of this process do.
    """
    with open(terminal.screen, "w", encoding="utf-8", closefd=False) as stream:
        console = _WithCursor(file=stream, force_terminal=True, highlight=False)
        live = Live(console=console, auto_refresh=False, redirect_stdout=False, redirect_stderr=False)
        pages = None if page is None else _Page(page, sum(state.status in ENDED for state in overview.states()))

        def look(*, last: bool = False) -> None:
            """Draw the table anew, below what was written meanwhile; the last time an unfinished line too."""
            console.size = terminal.size()
            caught = terminal.caught(whole_lines=not last)
            if caught:
                console.out(plain_lines(caught), highlight=False)
            states = overview.states()
            live.update(overview_table(states, overview.summary(states), terminal.size()), refresh=True)
            if pages is not None:
                pages.look(states)

        with live:
            look()
            try:
                with _every(REFRESH_SECONDS, look):
                    yield
            finally:
                look(last=True)
