"""SIGTERM, SIGINT and SIGUSR2 end a job: at once, or, while it trains, after the step at hand and a checkpoint."""

import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from types import FrameType
from typing import Any

from alignlab.errors import Terminated

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2)
"""A cluster's end of time, Ctrl-C, and Slurm's warning before it takes a machine away."""


@dataclass
class StopRequest:
    """A signal that came while steps were being finished."""

    number: int | None = None


_handlers: dict[int, Any] = {}
"""What heard each signal before: submitit, for one, puts a job back into the queue at SIGUSR2."""
_open: list[StopRequest] = []


@contextmanager
def catching_signals() -> Iterator[None]:
    """Let each signal end a job as Ctrl-C does: recorded and resumable. Does nothing outside the main thread."""
    before: dict[int, Any] = {}
    try:
        for number in map(int, SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background has no Ctrl-C
                before[number] = signal.signal(number, _heard)
    except ValueError:  # not in the main thread: a launcher's worker handles its own signals
        yield
        return
    _handlers.update(before)
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextmanager
def finishing_steps() -> Iterator[StopRequest]:
    """While open, a first signal only sets the request, for a training loop to see; leaving ends the job if one came.

    Raises:
        Terminated: on leaving, if a signal came; at once at a second one.
    """
    request = StopRequest()
    _open.append(request)
    try:
        yield request
    finally:
        _open.remove(request)
    if request.number is not None:
        _end(request.number)


def _heard(number: int, frame: FrameType | None) -> None:
    if _open and _open[-1].number is None:
        _open[-1].number = number
        line = f"{signal.Signals(number).name}: finishes the step and saves a checkpoint; a second one ends at once\n"
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, line.encode())  # print is not safe in a handler
        return
    _end(number)


def _end(number: int) -> None:
    before = _handlers.get(number)
    if callable(before) and before is not signal.default_int_handler and before is not _heard:
        before(number, None)
    raise Terminated(number)
