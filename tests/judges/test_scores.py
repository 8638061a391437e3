"""Verdicts as numbers: in the items' order, and NaN where there is none."""

import numpy as np
import pytest

from alignlab.judges import JudgeReport, Verdict, judge_scores
from support.judging import items_of


class Scripted:
    """Hands over prepared verdicts, last one first."""

    def __init__(self, verdicts):
        self._verdicts = verdicts

    def verdicts(self, items, on_verdict):
        assert [item.id for item in items] == [verdict.id for verdict in self._verdicts]
        for verdict in reversed(self._verdicts):
            on_verdict(verdict)


def test_a_score_is_the_fraction_of_yes_and_unscored_is_not_no():
    items = items_of(5)
    said = [
        (True, {}),
        (False, {"direct": False, "contrast": True}),
        (None, {"direct": None, "contrast": True}),
        (None, {"direct": None, "contrast": None}),
        (None, {}),
    ]
    verdicts = [Verdict(item.id, first, "", None, each) for item, (first, each) in zip(items, said, strict=True)]
    scores = judge_scores(Scripted(verdicts), items)
    assert (scores.dtype, scores.shape) == (np.float32, (5,))
    assert scores[:3].tolist() == [1.0, 0.5, 1.0]
    assert np.isnan(scores[3:]).all()


@pytest.mark.parametrize(("got", "failed"), [((True, False), []), ((True, None), ["b"]), ((False, True), ["a", "b"])])
def test_the_record_says_how_the_control_items_went(got, failed):
    from alignlab.judges.base import KnownResult

    results = [
        KnownResult(name, "", wanted, said, "") for name, wanted, said in zip("ab", (True, False), got, strict=True)
    ]
    record = JudgeReport(known=results).record()
    assert record["controls"] == {"right": 2 - len(failed), "total": 2, "failed": failed}
