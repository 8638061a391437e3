"""Judges that ask in several wordings: progress counts questions, since an item is done only after its last one."""

from contextlib import contextmanager

from alignlab.judges import asking
from alignlab.judges.asking import Answer, AskingJudge
from alignlab.judges.base import JudgeItem


class ByWording(AskingJudge):
    """Answer all items in one wording, then in the next, as batches of like beginnings do."""

    def _ask(self, asks, on_answer, *, known):
        for ask in sorted(asks, key=lambda ask: ask.wording):
            on_answer(ask, Answer(True, "yes"))


def test_progress_moves_with_the_first_wording(monkeypatch):
    seen = []

    @contextmanager
    def counted(label, total):
        seen.append(total)
        yield type("Bar", (), {"advance": lambda self, steps=1: seen.append(steps)})()

    monkeypatch.setattr(asking, "progress", counted)
    judge = ByWording("id", {"first": "a", "second": "b"}, cache=None, folder=None)
    items = [JudgeItem(str(number), f"request {number}", "begin", f"answer {number}") for number in range(3)]
    verdicts = []
    judge.verdicts(items, verdicts.append)
    assert len(verdicts) == 3
    assert seen == [6, *[1] * 6]
