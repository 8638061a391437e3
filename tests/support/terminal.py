"""A pseudo-terminal and what its screen shows: enough of a VT100 for lines that are moved over and written again."""

import fcntl
import os
import pty
import re
import struct
import termios
import threading
from contextlib import contextmanager, suppress

SEQUENCE = re.compile(r"\x1b\[([?\d;]*)([A-Za-z])")


class Screen:
    """Lines of a terminal of unlimited height."""

    def __init__(self):
        self.lines, self.row, self.column = [""], 0, 0

    def feed(self, text):
        position = 0
        while position < len(text):
            found = SEQUENCE.match(text, position)
            if found:
                self._obey(found[1], found[2])
                position = found.end()
                continue
            self._write(text[position])
            position += 1

    def _obey(self, numbers, command):
        if command == "A":
            self.row = max(0, self.row - int(numbers or 1))
        elif command == "K":
            assert numbers == "2"
            self.lines[self.row] = ""

    def _write(self, char):
        if char == "\r":
            self.column = 0
        elif char == "\n":
            self.row += 1
            if self.row == len(self.lines):
                self.lines.append("")
        elif char not in "\x07":
            assert char.isprintable(), repr(char)
            line = self.lines[self.row].ljust(self.column)
            self.lines[self.row] = line[: self.column] + char + line[self.column + 1 :]
            self.column += 1


class Pty:
    """The terminal's name, and what was written to it."""

    def __init__(self, master, slave):
        self.master, self.slave, self.raw = master, slave, b""
        self.name = os.ttyname(slave)
        self.before = termios.tcgetattr(slave)
        threading.Thread(target=self._read, daemon=True).start()

    def _read(self):
        with suppress(OSError):
            while part := os.read(self.master, 65536):
                self.raw += part

    @property
    def text(self):
        return self.raw.decode("utf-8", errors="replace")

    def screen(self):
        shown = Screen()
        shown.feed(self.text)
        return "\n".join(line.rstrip() for line in shown.lines)

    def is_restored(self):
        """Whether the cursor is shown and the keys are echoed as before."""
        cursor = re.findall(r"\x1b\[\?25([lh])", self.text)
        return termios.tcgetattr(self.slave) == self.before and cursor[-1:] in (["h"], [])


@contextmanager
def terminal(*, columns=120, lines=30):
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", lines, columns, 0, 0))
    try:
        yield Pty(master, slave)
    finally:
        os.close(slave)
        os.close(master)
