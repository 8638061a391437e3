"""What every judge takes and gives. Imports no torch."""

import re
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from alignlab.io.hashes import text_id

_WORD = re.compile(r"[^\W_]")
"""A letter or digit of any script."""
NO_WORDS = "no_words"
"""Reason of the verdict on a text without a word, which a judge that is asked in words is not asked about."""
ID_DIGITS = 32
"""Of the ids of judges, prompts and judged texts."""


@dataclass(frozen=True)
class JudgeItem:
    """One continuation to be judged."""

    id: str
    request: str
    prefix: str
    """What was put into the model's mouth: the opener and the first part of a harmful response."""
    continuation: str
    """What the model wrote on by itself, without special tokens."""

    @property
    def text_id(self) -> str:
        """Hash of the texts; items that share it get one verdict."""
        return text_id(self.request, self.prefix, self.continuation, digits=ID_DIGITS)


@dataclass(frozen=True)
class Answer:
    """What one judge said to one wording."""

    corrected: bool | None
    reason: str
    """Why, in the judge's words; of an unscored answer one of UNSCORED or `refused_<status>`."""
    position: int | None = None
    """Whitespace words of the continuation before the correction begins; None if there is none, or nobody knows."""


@dataclass(frozen=True)
class Verdict:
    """Whether a continuation corrects its course."""

    id: str
    corrected: bool | None
    """None: unscored, which is neither yes nor no."""
    reason: str
    position: int | None = None
    by_wording: dict[str, bool | None] = field(default_factory=dict)
    """The answer to each wording of the judge's prompt; the verdict is the first one's. Empty without wordings."""

    def row(self) -> dict[str, Any]:
        """The record in verdicts.jsonl."""
        row = {"id": self.id, "corrected": self.corrected, "reason": self.reason, "position": self.position}
        return {**row, "by_wording": self.by_wording} if len(self.by_wording) > 1 else row


UNSCORED = {
    "unparsed": "the answer holds no verdict in the asked form",
    "null_content": "the answer's content is null",
    "empty": "the answer is empty",
    "length": "the answer was cut at judge.max_tokens",
    "content_filter": "the server's content filter took the answer",
    "refusal": "the judge refused to answer",
    "no_answer": "no answer within judge.deadline_s",
    "off_menu": "neither yes nor no is likely",
}
"""Reasons of unscored verdicts; beside these `refused_<status>`: the server does not take this call."""


@dataclass(frozen=True)
class KnownCase:
    """An item whose verdict is beyond doubt."""

    name: str
    item: JudgeItem
    corrected: bool


@dataclass(frozen=True)
class KnownResult:
    """How a judge did on a known case."""

    name: str
    wording: str
    wanted: bool
    got: bool | None
    reason: str


@dataclass
class JudgeReport:
    """What judging came to."""

    items: int = 0
    texts: int = 0
    """Different texts among the items; each is judged once."""
    wordless: int = 0
    """Texts without a word, which correct nothing and need no judge."""
    asked: int = 0
    """Answers that the judge gave in this run, known cases not among them."""
    reused: int = 0
    """Answers from earlier runs."""
    unscored: Counter[str] = field(default_factory=Counter)
    """Reason -> items without a verdict."""
    known: list[KnownResult] = field(default_factory=list)
    usage: dict[str, Any] = field(default_factory=dict)
    """Of a server: calls, tokens, money."""

    def recall(self, items: Sequence[JudgeItem], verdicts: Mapping[str, Mapping[str, Any]]) -> None:
        """Count what an earlier attempt at the run has judged, so that a resumed run reports all of it.

        Args:
            items: of the run, also those that are judged now, which are not counted here.
            verdicts: id -> row of each verdict that is known.
        """
        now = {item.text_id for item in items if item.id not in verdicts}
        reasons = {item.text_id: str(verdicts[item.id]["reason"]) for item in items if item.id in verdicts}
        known = [verdicts[item.id] for item in items if item.id in verdicts]
        self.items += len(known)
        self.texts += len(reasons.keys() - now)
        self.wordless += sum(reason == NO_WORDS for text, reason in reasons.items() if text not in now)
        self.unscored.update(str(row["reason"]) for row in known if row["corrected"] is None)

    def record(self) -> dict[str, Any]:
        """For result.json."""
        counts = {name: getattr(self, name) for name in ("items", "texts", "wordless", "asked", "reused")}
        failed = [f"{item.name} {item.wording}".strip() for item in self.known if item.got is not item.wanted]
        controls = {"right": len(self.known) - len(failed), "total": len(self.known), "failed": failed}
        known = [vars(result) for result in self.known]
        unscored = dict(sorted(self.unscored.items()))
        return {**counts, "unscored": unscored, "controls": controls, "known_cases": known, **self.usage}


OnVerdict = Callable[[Verdict], None]


class Judge(Protocol):
    """Says of continuations whether they correct their course."""

    id: str
    """Hash of what its verdicts depend on."""
    wordings: tuple[str, ...]
    """The wordings of its prompt; empty for a judge without a prompt."""
    report: JudgeReport
    """What the calls of `verdicts` came to so far."""

    def verdicts(self, items: Sequence[JudgeItem], on_verdict: OnVerdict) -> None:
        """Judges every item; hands each verdict over as soon as it is known, in any order, each id once.

        Raises:
            ValueError: if two items share an id.
            ConfigError: if the judge cannot be used as the config says; verdicts handed over before stay true.
            OnlyPlanned: if the judge is asked only what judging would take.
        """
        ...

    def planned(self, items: Sequence[JudgeItem]) -> str | None:
        """What judging these would take, if the judge is asked only that (judge.dry_run=true); else None."""
        ...


def has_words(text: str) -> bool:
    """Whether there is a letter or a digit: without one nothing is said, so nothing is corrected."""
    return bool(_WORD.search(text))


def refuse_twins(items: Sequence[JudgeItem]) -> None:
    """Raises ValueError if two items share an id."""
    ids = Counter(item.id for item in items)
    twin, count = max(ids.items(), key=lambda pair: pair[1], default=("", 0))
    if count > 1:
        raise ValueError(f"the id {twin} comes {count} times among the items to judge")


def word_position(text: str, start: int) -> int:
    """Whitespace words that begin before a character of a text and end before its word."""
    before = text[:start]
    inside_a_word = bool(before) and not before[-1].isspace()
    return len(before.split()) - inside_a_word
