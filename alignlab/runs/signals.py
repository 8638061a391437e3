"""Signals that end a job: at once, or, while it trains, after the step at hand and a checkpoint."""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from types import FrameType
from typing import Any

from alignlab.errors import Terminated

SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR2, signal.SIGUSR1, signal.SIGHUP)
"""A cluster's end of time, Ctrl-C, its warnings before it takes a machine away, and a terminal that closes."""
LONGEST_WAIT_S = 600
"""For which a stopped worker waits for the others of its sweep."""


@dataclass
class StopRequest:
    """A signal that came while steps were being finished."""

    number: int | None = None


_open: list[StopRequest] = []


@contextmanager
def catching_signals() -> Iterator[None]:
    """Let each signal end a job as Ctrl-C does: recorded and resumable. Does nothing outside the main thread.

    On leaving, the signal goes on to what heard it before: submitit's handler, for one, puts the job back into the
    queue at SIGUSR2 and exits. With blocks inside one another that is left to the outermost, so that every job inside
    is recorded first.
    """
    before: dict[int, Any] = {}
    try:
        for number in map(int, SIGNALS):
            if signal.getsignal(number) is not signal.SIG_IGN:  # a shell's background has no Ctrl-C
                before[number] = signal.signal(number, _heard)
    except ValueError:  # not in the main thread: a launcher's worker handles its own signals
        yield
        return
    try:
        yield
    except Terminated as stopped:
        _restore(before)
        earlier = before.get(stopped.number)
        if callable(earlier) and earlier not in (signal.default_int_handler, _heard):
            earlier(stopped.number, None)
        raise
    finally:
        _restore(before)


def _restore(handlers: Mapping[int, Any]) -> None:
    for number, handler in handlers.items():
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
        raise Terminated(request.number)


def _heard(number: int, frame: FrameType | None) -> None:
    if _open and _open[-1].number is None:
        _open[-1].number = number
        _note(f"{signal.Signals(number).name}: finishes the step and saves a checkpoint; a second one ends at once")
        return
    raise Terminated(number)


def _note(line: str) -> None:
    """A line to the terminal, if that is still there; print is not safe in a handler."""
    with suppress(OSError, ValueError):
        os.write(sys.__stderr__.fileno() if sys.__stderr__ else 2, f"{line}\n".encode())


@contextmanager
def passing_on(is_at_work: Callable[[], bool]) -> Iterator[None]:
    """Let a signal end this process and the joblib workers of its sweep: they get it first, and time to save.

    A second signal ends all of them at once. Does nothing outside the main thread.

    Args:
        is_at_work: whether a run of the sweep is still being worked on.

    Raises:
        Terminated: when a signal came.
    """
    heard: list[int] = []

    def hear(number: int, frame: FrameType | None) -> None:
        """Pass the first signal on and wait for the runs; end at the second."""
        heard.append(number)
        if len(heard) == 1 and _pass_on(number):
            _note(f"{signal.Signals(number).name}: waits for runs that save a checkpoint; a second one ends at once")
            while is_at_work():
                time.sleep(0.1)
        raise Terminated(number)

    before: dict[int, Any] = {}
    with suppress(ValueError):  # not in the main thread
        for number in map(int, SIGNALS):
            if signal.getsignal(number) in (signal.SIG_DFL, signal.default_int_handler):
                before[number] = signal.signal(number, hear)
    try:
        yield
    finally:
        _restore(before)


def _pass_on(number: int) -> int:
    """Send a signal to the joblib workers of this process; how many there are."""
    import psutil

    count = 0
    for child in psutil.Process().children():
        with suppress(psutil.Error):
            if any("popen_loky" in argument for argument in child.cmdline()):
                child.send_signal(number)
                count += 1
    return count


@contextmanager
def in_worker() -> Iterator[None]:
    """A joblib worker's job: ends with the process that started it, also when that was killed, and saves first.

    A terminal's Ctrl-C reaches it through that process alone. Once stopped it takes no other run of the sweep: it
    waits to be ended.
    """
    parent = os.getppid()
    with suppress(PermissionError):  # it leads a session already
        os.setsid()
    over = threading.Event()

    def watch() -> None:
        while not over.wait(1.0):
            if os.getppid() != parent:
                os.kill(os.getpid(), signal.SIGTERM)
                return

    threading.Thread(target=watch, name="parent", daemon=True).start()
    try:
        yield
    except KeyboardInterrupt:
        end = time.monotonic() + LONGEST_WAIT_S
        while os.getppid() == parent and time.monotonic() < end:
            time.sleep(0.1)
        if os.getppid() != parent:
            os._exit(128 + signal.SIGTERM)  # nobody is left to be told
        raise
    finally:
        over.set()
