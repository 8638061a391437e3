"""Answers that judges gave, kept for all runs: judging the same text again costs nothing.

A folder per judge and prompt; each process appends to a file of its own, so that no lock is needed on any file system.
"""

import uuid
from pathlib import Path

from alignlab.io.kept import is_writable
from alignlab.io.records import checked_line, checked_lines
from alignlab.judges.base import Answer


class AnswerStore:
    """The answers of one judge to one wording.

    Args:
        folder: where they lie, e.g. CACHE/verdicts/<judge>/<prompt>.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._own = folder / f"{uuid.uuid4().hex}.jsonl"
        self._known = dict(_read(folder))
        self._keeps = is_writable(folder)

    def get(self, text_id: str) -> Answer | None:
        """What was answered of a text, by this or an earlier run."""
        return self._known.get(text_id)

    def put(self, text_id: str, answer: Answer) -> None:
        """Keeps an answer that holds a verdict; another try may do better than one that does not."""
        if answer.corrected is None:
            return
        self._known[text_id] = answer
        if not self._keeps:  # another user's cache; the run's own records hold its verdicts
            return
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._own.open("ab") as stream:  # closed each time: what a killed process knew is not lost
            stream.write(checked_line({"text": text_id, **vars(answer)}))


def _read(folder: Path) -> list[tuple[str, Answer]]:
    """Every whole line of every file; what a crash cut is asked again."""
    lines = (row for file in sorted(folder.glob("*.jsonl")) for row in checked_lines(file.read_bytes()))
    return [(row["text"], Answer(row["corrected"], row["reason"], row["position"])) for row in lines if row is not None]
