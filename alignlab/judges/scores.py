"""A judge as a scorer: its verdicts as numbers."""

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from alignlab.judges.base import Judge, JudgeItem, Verdict


def judge_scores(
    judge: Judge, items: Sequence[JudgeItem], unscored: dict[str, str] | None = None
) -> NDArray[np.float32]:
    """Fraction of yes over the judge's prompt templates, float32 of shape (n,), in the order of the items.

    NaN where the judge gave no verdict to any template: unscored is not no, so count those apart before a mean is
    taken.

    Args:
        judge: any judge; one without templates gives 1 or 0.
        items: what to score, each with an id of its own.
        unscored: takes the reason of each item without a score, by id.

    Raises:
        ValueError, ConfigError, NoAnswer: as `Judge.verdicts` does.
    """
    scores: dict[str, float] = {}

    def note(verdict: Verdict) -> None:
        said = verdict.by_wording.values() or [verdict.corrected]
        known = [answer for answer in said if answer is not None]
        scores[verdict.id] = sum(known) / len(known) if known else math.nan
        if not known and unscored is not None:
            unscored[verdict.id] = verdict.reason

    judge.verdicts(items, note)
    return np.array([scores[item.id] for item in items], dtype=np.float32)
