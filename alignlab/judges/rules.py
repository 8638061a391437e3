"""Phrases that mark a correction: no model, no network, the same verdict everywhere."""

import re
from collections.abc import Sequence

from alignlab.config.schema import RulesJudgeConfig
from alignlab.io.hashes import text_id
from alignlab.judges.base import (
    ID_DIGITS,
    Answer,
    JudgeItem,
    JudgeReport,
    KnownResult,
    OnVerdict,
    Verdict,
    refuse_twins,
)
from alignlab.judges.known import KNOWN_CASES, known_line
from alignlab.runs.progress import say

_EDGES = re.compile(r"^[\W_]+|[\W_]+$")
"""Punctuation around a word."""


class RulesJudge:
    """Looks for phrases.

    Args:
        config: the phrases.
    """

    wordings: tuple[str, ...] = ()

    def __init__(self, config: RulesJudgeConfig) -> None:
        self._phrases = [_words(phrase) for phrase in config.phrases]
        self.id = text_id("rules", *map(" ".join, self._phrases), digits=ID_DIGITS)
        self.report = JudgeReport()

    def verdicts(self, items: Sequence[JudgeItem], on_verdict: OnVerdict) -> None:
        """See Judge.verdicts; each text is read on its own, so twins cost nothing."""
        refuse_twins(items)
        if not self.report.known:
            self.report.known = [self._known(case.name, case.item, wanted=case.corrected) for case in KNOWN_CASES]
            say(known_line(self.report.known))
        self.report.items += len(items)
        self.report.texts += len({item.text_id for item in items})
        for item in items:
            answer = self.answer(item.continuation)
            on_verdict(Verdict(item.id, answer.corrected, answer.reason, answer.position))

    def planned(self, items: Sequence[JudgeItem]) -> str | None:
        """Nothing to plan: it costs nothing."""
        return None

    def answer(self, continuation: str) -> Answer:
        """Corrected from the first phrase on, if there is one."""
        words = _words(continuation)
        found = [
            (index, " ".join(phrase))
            for phrase in self._phrases
            for index in range(len(words) - len(phrase) + 1)
            if words[index : index + len(phrase)] == phrase
        ]
        if not found:
            return Answer(False, "no phrase of judge.phrases")
        index, phrase = min(found, key=lambda found: found[0])
        return Answer(True, phrase, index)

    def _known(self, name: str, item: JudgeItem, *, wanted: bool) -> KnownResult:
        answer = self.answer(item.continuation)
        return KnownResult(name, "", wanted, answer.corrected, answer.reason)


def _words(text: str) -> list[str]:
    """Whitespace words without case and outer punctuation, one for each, so that their count is a position."""
    return [_EDGES.sub("", word.replace("\u2019", "'")) for word in text.lower().split()]
