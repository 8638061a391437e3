"""One console: progress bars for long work, quiet libraries, short notices."""

import logging
import os
import sys
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

TABLE_WIDTH = 120
"""Columns of a log that is no terminal: tables keep their shape there."""

console = Console(highlight=False, width=None if sys.stdout.isatty() else TABLE_WIDTH)
Item = TypeVar("Item")
_bars_hidden = False


def say(text: str) -> None:
    """A line for the person at the terminal, and for the job's log."""
    console.print(text, markup=False, soft_wrap=True)
    logging.getLogger("alignlab").info(text)


def hide_bars() -> None:
    """No bars from now on: several processes would draw them over one another."""
    global _bars_hidden
    _bars_hidden = True


@contextmanager
def progress(label: str, total: int) -> Iterator["Bar"]:
    """A bar that vanishes when it is done; the label counts what it counts."""
    columns = (
        TextColumn("{task.description:<28}"),
        BarColumn(bar_width=32),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=console, transient=True, disable=_bars_hidden or not console.is_terminal) as bars:
        yield Bar(bars, bars.add_task(label, total=total))


class Bar:
    """Moves one progress bar."""

    def __init__(self, bars: Progress, task: object) -> None:
        self._bars, self._task = bars, task

    def advance(self, steps: int = 1) -> None:
        """Moves the bar on."""
        self._bars.advance(self._task, steps)  # type: ignore[arg-type]


def track(items: Sequence[Item], *, label: str) -> Iterable[Item]:
    """Iterates under a progress bar."""
    with progress(label, len(items)) as bar:
        for item in items:
            yield item
            bar.advance()


def quiet_libraries() -> None:
    """Silences what the libraries say about themselves; their warnings go to the job's log."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_DATASETS_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    logging.getLogger("bitsandbytes").setLevel(logging.ERROR)  # it warns of kernels that no run here asks for
    logging.captureWarnings(True)
    warnings.simplefilter("default")
