"""What judges with a prompt share: each text asked once a wording, earlier answers reused, known cases first."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.errors import OnlyPlanned
from alignlab.io.hashes import text_id
from alignlab.judges.base import (
    ID_DIGITS,
    NO_WORDS,
    Answer,
    JudgeItem,
    JudgeReport,
    KnownResult,
    OnVerdict,
    Verdict,
    has_words,
    refuse_twins,
)
from alignlab.judges.known import KNOWN_CASES, known_line
from alignlab.judges.memo import Memo
from alignlab.judges.store import AnswerStore
from alignlab.runs.progress import progress, say


@dataclass(frozen=True)
class Ask:
    """One question to the judge: a text in one wording."""

    item: JudgeItem
    wording: str


OnAnswer = Callable[[Ask, Answer], None]


class AskingJudge(ABC):
    """A judge that is asked in words. What answers is a subclass's `_ask`.

    Args:
        judge_id: hash of what the answers depend on, apart from the prompt.
        prompts: name of a wording -> hash of its prompt; the first one's answer is the verdict.
        cache: root of what runs share; None keeps no answers beyond this run.
        folder: the run's folder; None keeps nothing beyond this process.
    """

    def __init__(self, judge_id: str, prompts: Mapping[str, str], *, cache: Path | None, folder: Path | None) -> None:
        self.id, self.wordings = judge_id, tuple(prompts)
        self.memo = Memo(folder, text_id(judge_id, *prompts.values(), digits=ID_DIGITS))
        self.report = JudgeReport()
        self._stores = {
            name: AnswerStore(cache / "verdicts" / judge_id / prompt) if cache else None
            for name, prompt in prompts.items()
        }

    def verdicts(self, items: Sequence[JudgeItem], on_verdict: OnVerdict) -> None:
        """See Judge.verdicts. The first answers asked for are those to the known cases."""
        refuse_twins(items)
        plan = self.planned(items) if items else None
        if plan is not None:
            raise OnlyPlanned(plan)
        batch = _Batch(items, self.wordings, self.report, on_verdict)
        asks = batch.open_asks(self._known_answer)
        self._before(asks)
        batch.settle_known()
        if not asks:
            self._recall_known_cases()
            return
        with progress("judging", len(asks)) as bar:  # by questions: an item is done only after its last wording
            if not self.report.known:
                self._ask_known_cases()

            def on_answer(ask: Ask, answer: Answer) -> None:
                """Keep an answer, and settle its item once every wording of it is answered."""
                store = self._stores[ask.wording]
                if store is not None:
                    store.put(ask.item.text_id, answer)
                self.report.asked += 1
                batch.answered(ask, answer)
                bar.advance()

            self._ask(asks, on_answer, known=False)

    def planned(self, items: Sequence[JudgeItem]) -> str | None:
        """See Judge.planned."""
        report = JudgeReport()
        asks = _Batch(items, self.wordings, report, lambda verdict: None).open_asks(self._known_answer)
        return self._plan(asks, report)

    def _plan(self, asks: Sequence[Ask], report: JudgeReport) -> str | None:
        """What asking these would take, for a judge that was asked only that."""
        return None

    @abstractmethod
    def _ask(self, asks: Sequence[Ask], on_answer: OnAnswer, *, known: bool) -> None:
        """Answers every ask, in any order, each once; `known`: they are the known cases."""

    def _before(self, asks: Sequence[Ask]) -> None:  # noqa: B027  # a judge on this machine refuses nothing
        """What there is to refuse before the first question is put."""

    def _known_answer(self, ask: Ask) -> Answer | None:
        store = self._stores[ask.wording]
        return store.get(ask.item.text_id) if store is not None else None

    def open_known_cases(self) -> list[Ask]:
        """The known cases that this run, in this or an earlier attempt, has not asked."""
        asks = [Ask(case.item, wording) for case in KNOWN_CASES for wording in self.wordings]
        return [ask for ask in asks if _name_of(ask) not in self.memo.get("known", {})]

    def _ask_known_cases(self) -> None:
        known: dict[str, Any] = self.memo.get("known", {})

        def on_answer(ask: Ask, answer: Answer) -> None:
            known[_name_of(ask)] = [answer.corrected, answer.reason]
            self.memo.keep("known", known)

        asks = self.open_known_cases()
        if asks:
            self._ask(asks, on_answer, known=True)
        self._recall_known_cases()
        say(known_line(self.report.known))

    def _recall_known_cases(self) -> None:
        """Report how the judge did on the known cases, if this attempt at the run or an earlier one has asked them."""
        if self.open_known_cases():
            return
        known = self.memo.get("known", {})
        self.report.known = [
            KnownResult(case.name, wording, case.corrected, *known[_name_of(Ask(case.item, wording))])
            for case in KNOWN_CASES
            for wording in self.wordings
        ]


def _name_of(ask: Ask) -> str:
    return f"{ask.item.id}, {ask.wording}"


class _Batch:
    """The items of one call of `verdicts`, by text."""

    def __init__(
        self, items: Sequence[JudgeItem], wordings: Sequence[str], report: JudgeReport, on_verdict: OnVerdict
    ) -> None:
        self._wordings, self._report, self._on_verdict = wordings, report, on_verdict
        self._items: dict[str, list[JudgeItem]] = {}
        for item in items:
            self._items.setdefault(item.text_id, []).append(item)
        self._answers: dict[str, dict[str, Answer]] = {key: {} for key in self._items}
        report.items += len(items)
        report.texts += len(self._items)

    def open_asks(self, known: Callable[[Ask], Answer | None]) -> list[Ask]:
        """What must be asked: each text in each wording, unless it holds no word or was answered before."""
        asks = []
        for key, items in self._items.items():
            if not has_words(items[0].continuation):
                self._report.wordless += 1
                continue
            for wording in self._wordings:
                ask = Ask(items[0], wording)
                answer = known(ask)
                if answer is None:
                    asks.append(ask)
                else:
                    self._report.reused += 1
                    self._answers[key][wording] = answer
        return asks

    def settle_known(self) -> None:
        """Hands over the verdicts that need no question."""
        for key, items in self._items.items():
            if not has_words(items[0].continuation):
                wordless = Answer(False, NO_WORDS)
                self._answers[key] = dict.fromkeys(self._wordings, wordless)
            self._hand_over(key)

    def answered(self, ask: Ask, answer: Answer) -> None:
        """Takes an answer, and hands the verdict over when it was the text's last."""
        self._answers[ask.item.text_id][ask.wording] = answer
        self._hand_over(ask.item.text_id)

    def _hand_over(self, key: str) -> None:
        answers = self._answers[key]
        if len(answers) < len(self._wordings):
            return
        first = answers[self._wordings[0]]
        by_wording = {name: answers[name].corrected for name in self._wordings}
        for item in self._items[key]:
            if first.corrected is None:
                self._report.unscored[first.reason] += 1
            self._on_verdict(Verdict(item.id, first.corrected, first.reason, first.position, by_wording))
