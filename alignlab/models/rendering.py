"""Render chat templates under limits of memory, time and output. Imports no torch."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

from alignlab.data.records import Turn
from alignlab.errors import ConfigError
from alignlab.models.render_worker import MAX_SECONDS

BATCH = 256
"""Conversations of one exchange with the worker."""
THOUGHT_ENDS = ("</think>", "[/THINK]", "<|END_THINKING|>", "</thinking>", "</seed:think>", "<channel|>")
"""What ends a thought in an assistant's turn; most templates drop a thought from all but the last."""


_WRITTEN_PART = re.compile(r"""["']type["']: ["']text["'], ["']text["']: ["']""")
"""A part of a content, as Python or JSON writes it."""


class TemplateError(ConfigError, ValueError):
    """A chat template that cannot be used for a conversation: names template, reason and remedy."""


@dataclass(frozen=True)
class Conversation:
    """Turns to render."""

    turns: tuple[Turn, ...]
    ask: bool = False
    """Add the generation prompt, up to where the assistant begins."""


@dataclass(frozen=True)
class Rendered:
    """A rendered conversation: its text, or the reason why there is none."""

    text: str
    error: str = ""


class TemplateRenderer:
    """A chat template in a process of its own, which starts with the first conversation and ends with this one.

    Args:
        template: the Jinja text.
        variables: the special tokens that templates name, e.g. `bos_token`.
    """

    def __init__(self, template: str, variables: dict[str, str]) -> None:
        self._first = {"template": template, "variables": variables}
        self._worker: subprocess.Popen[str] | None = None
        self._owner = os.getpid()
        self._lock = threading.Lock()
        self._as_parts: bool | None = None

    def render_all(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """Every conversation by the template; one that it cannot render has an error instead of a text."""
        with self._lock:
            if self._as_parts is None:
                self._as_parts = self._reads_parts()
            found: list[Rendered] = []
            for start in range(0, len(conversations), BATCH):
                found += self._exchange(conversations[start : start + BATCH])
            return found

    def _reads_parts(self) -> bool:
        """Whether the template takes content as a list of parts, and drops it as text."""
        probe, word = [Conversation((Turn("user", "probing-text"),), ask=True)], "probing-text"
        for self._as_parts in (False, True):
            if word in self._exchange(probe)[0].text:
                return self._as_parts
        return False

    def _exchange(self, conversations: Sequence[Conversation]) -> list[Rendered]:
        """One exchange; where a conversation ends the worker, the rest of them are not tried."""
        given = [{"messages": [self._message(turn) for turn in one.turns], "ask": one.ask} for one in conversations]
        found = list(self._answers(given))
        if len(found) == len(given):
            return [self._as_text(one.get("text", ""), one.get("error", "")) for one in found]
        fault = Rendered("", self._end())
        return [Rendered(one.get("text", ""), one.get("error", "")) for one in found] + [fault] * (
            len(given) - len(found)
        )

    def _as_text(self, text: str, error: str) -> Rendered:
        """The rendering, unless the template wrote a list of parts as it is."""
        if self._as_parts and _WRITTEN_PART.search(text):
            return Rendered("", "takes the content of some roles as a list of parts and of others as text")
        return Rendered(text, error)

    def _message(self, turn: Turn) -> dict[str, Any]:
        content = [{"type": "text", "text": turn.content}] if self._as_parts else turn.content
        return {"role": turn.role, "content": content}

    def _answers(self, given: list[dict[str, Any]]) -> Iterator[dict[str, str]]:
        """The worker's answers, until it ends."""
        if self._owner != os.getpid():  # a forked process starts its own
            self._owner, self._worker = os.getpid(), None
        worker = self._worker = self._worker or self._started()
        assert worker.stdin is not None
        assert worker.stdout is not None
        with contextlib.suppress(OSError):  # it may end while it is written to
            worker.stdin.write(json.dumps(given) + "\n")
            worker.stdin.flush()
        for _ in given:
            line = worker.stdout.readline()
            if not line.endswith("\n"):
                return
            yield json.loads(line)

    def _started(self) -> "subprocess.Popen[str]":
        program = [sys.executable, "-P", "-X", "utf8", str(Path(__file__).with_name("render_worker.py"))]
        pipe, quiet = subprocess.PIPE, subprocess.DEVNULL
        worker = subprocess.Popen(
            program, stdin=pipe, stdout=pipe, stderr=quiet, text=True, encoding="utf-8", process_group=0
        )  # a group of its own, so that Ctrl-C ends it only with this process
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(self._first) + "\n")
        return worker

    def _end(self) -> str:
        """End the worker, and say why it ended."""
        worker, self._worker = self._worker, None
        if worker is None or self._owner != os.getpid():
            return ""
        for stream in (worker.stdin, worker.stdout):
            with contextlib.suppress(OSError):
                assert stream is not None
                stream.close()
        with contextlib.suppress(subprocess.TimeoutExpired):
            worker.wait(MAX_SECONDS)
        worker.kill()
        code = worker.wait()
        if code == -signal.SIGVTALRM:
            return f"it takes more than {MAX_SECONDS:g} s for one conversation"
        return f"its process ended with code {code}"

    def __del__(self) -> None:
        with contextlib.suppress(Exception):
            self._end()


@lru_cache(maxsize=8)
def _renderer(template: str, variables: str) -> TemplateRenderer:
    return TemplateRenderer(template, json.loads(variables))


def renderer_of(template: str, variables: dict[str, str]) -> TemplateRenderer:
    """The renderer of a template, the same one at every call: its worker starts once a process."""
    return _renderer(template, json.dumps(variables, sort_keys=True))


def missing_turn(text: str, turns: Sequence[Turn]) -> Turn | None:
    """The first turn whose text a rendered conversation does not hold, in order; None if all are there.

    Of an assistant's turn the words after its last thought are enough. White space does not count.
    """
    rest, position = squeeze(text), 0
    for turn in turns:
        wanted = squeeze(without_thoughts(turn))
        found = rest.find(wanted, position)
        if found < 0:
            return turn
        position = found + len(wanted)
    return None


def without_thoughts(turn: Turn) -> str:
    """The turn's words without the thoughts before them."""
    content = turn.content
    if turn.role == "assistant":
        for end in THOUGHT_ENDS:
            content = content.rpartition(end)[2]
    return content.strip()


def squeeze(text: str) -> str:
    """The text without white space."""
    return "".join(text.split())
