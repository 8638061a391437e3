"""A terminal that one display owns: what anything else writes is caught and shown above it, keys are not echoed."""

import os
import sys
import tempfile
import termios
from collections.abc import Iterator
from contextlib import contextmanager, suppress

OUT, ERR = 1, 2
MOST_BYTES = 65_536
"""Of what was written that is shown at once."""


class Terminal:
    """The terminal behind standard output, and what was written to it meanwhile. Use `owned_terminal`."""

    def __init__(self, written: int, screen: int) -> None:
        self._written, self._read = written, 0
        self.screen = screen
        """File descriptor of the terminal itself."""

    def size(self) -> os.terminal_size:
        """Columns and lines."""
        return os.get_terminal_size(self.screen)

    def caught(self, *, whole_lines: bool = True) -> str:
        """What was written since the last call.

        Args:
            whole_lines: leave an unfinished line for the next call.
        """
        if not whole_lines:
            _flush()
        found = os.pread(self._written, MOST_BYTES, self._read)
        if whole_lines and len(found) < MOST_BYTES:
            found = found[: found.rfind(b"\n") + 1]
        self._read += len(found)
        return found.decode("utf-8", errors="replace")


def can_be_owned() -> bool:
    """Whether standard output is a terminal that this process may draw on: a background job may not."""
    try:
        fd = sys.stdout.fileno()
        return fd == OUT and os.isatty(fd) and os.environ.get("TERM") != "dumb" and _in_foreground(fd)
    except (OSError, ValueError, AttributeError):
        return False


def _in_foreground(fd: int) -> bool:
    try:
        return os.tcgetpgrp(fd) == os.getpgrp()
    except OSError:  # not the terminal that controls this process, so no shell waits behind it
        return True


@contextmanager
def owned_terminal() -> Iterator[Terminal]:
    """Redirect standard output and error, where they are the terminal, into a file; give both back however it ends.

    The descriptors themselves are redirected, so that child processes and C libraries are caught too; into a file and
    not a pipe, because whoever writes to a full pipe waits for its reader.
    """
    screen = os.dup(OUT)
    with tempfile.TemporaryFile() as written:
        target = written.fileno()
        saved = {fd: os.dup(fd) for fd in (OUT, ERR) if os.isatty(fd)}
        _flush()
        for fd in saved:
            os.dup2(target, fd)
        try:
            with _without_echo(screen):
                yield Terminal(target, screen)
        finally:
            _flush()
            for fd, before in saved.items():
                os.dup2(before, fd)
                os.close(before)
            os.close(screen)


def _flush() -> None:
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):
            stream.flush()


@contextmanager
def _without_echo(fd: int) -> Iterator[None]:
    """Keys that are typed meanwhile are neither shown nor left for the shell; Ctrl-C and Ctrl-Z still do their work."""
    try:
        before = termios.tcgetattr(fd)
    except termios.error:
        yield
        return
    quiet = [*before]
    quiet[3] &= ~termios.ECHO
    termios.tcsetattr(fd, termios.TCSADRAIN, quiet)
    try:
        yield
    finally:
        if _in_foreground(fd):  # a background job that sets a terminal is stopped
            termios.tcsetattr(fd, termios.TCSAFLUSH, before)
