"""Whether a reward says what its objective's own labels say: its sign and its scale."""

from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from alignlab.engine.scoring.rows import EncodedPair
from alignlab.rewards.base import Reward
from alignlab.stats import Interval, groups_needed, pair_accuracy, share_interval

Floats = NDArray[np.float64]
MOST_PAIRS = 500
"""Pairs that a check looks at."""
SCALES = (1e-3, 1e3)
"""Range in which a reward's scale is fitted."""


class Sign(StrEnum):
    """Whether a reward ranks pairs as its objective's own labels do."""

    RIGHT = "right"
    NOT_SHOWN = "not shown"
    """One half is in the interval: the pairs at hand do not tell the reward from a coin."""
    REVERSED = "reversed"


def sign_of(share: Interval) -> Sign:
    """The verdict on the share of pairs on which a reward agrees with its labels."""
    if share.low is not None and share.low > 0.5:
        return Sign.RIGHT
    return Sign.REVERSED if share.high is not None and share.high < 0.5 else Sign.NOT_SHOWN


def not_shown(share: Interval) -> str:
    """What to say of a reward whose sign is not shown: how many prompts would show it."""
    needed = groups_needed(share)
    more = "" if needed is None else f"; {needed} prompts would tell with probability .8, there are {share.groups}"
    return f"not shown to be right{more}"


@dataclass(frozen=True)
class Agreement:
    """A reward beside labels."""

    share: Interval
    """Pairs whose labelled better response scores higher, ties counting half; interval over prompts."""
    spread: float | None
    """Standard deviation of the score differences, in the reward's unit."""
    scale: float | None
    """What its differences must be multiplied by to be the labels' log-odds (Bradley-Terry): 1 where its beta is right.
    None where no scale fits: all pairs agree, or none."""

    @property
    def sign(self) -> Sign:
        """Right, not shown, or reversed."""
        return sign_of(self.share)

    def as_record(self) -> dict[str, object]:
        """The shape of result.json."""
        needed = groups_needed(self.share) if self.sign is Sign.NOT_SHOWN else None
        found: dict[str, object] = {"agreement": self.share.as_record(), "sign": str(self.sign)}
        return {**found, "prompts_needed": needed, "spread": self.spread, "scale": self.scale}


def agreement(reward: Reward, pairs: Sequence[EncodedPair]) -> Agreement:
    """Scores at most MOST_PAIRS of the pairs, the same ones whatever their order."""
    looked_at = sorted(pairs, key=lambda pair: pair.id)[:MOST_PAIRS]
    if not looked_at:
        return Agreement(share_interval([]), None, None)
    rows = [pair.chosen for pair in looked_at] + [pair.rejected for pair in looked_at]
    chosen, rejected = reward.score_encoded(rows).double().chunk(2)
    margins: Floats = (chosen - rejected).numpy()
    spread = float(margins.std(ddof=1)) if len(margins) > 1 else None
    return Agreement(pair_accuracy(margins, [pair.group for pair in looked_at]), spread, fitted_scale(margins))


def fitted_scale(margins: Floats) -> float | None:
    """The factor s > 0 that makes sum log sigmoid(s * margin) greatest; None where it lies at an end of SCALES."""
    low, high = np.log(SCALES[0]), np.log(SCALES[1])
    if not margins.any():
        return None
    unit = float(np.abs(margins).mean())
    found = minimize_scalar(
        lambda log_s: float(np.logaddexp(0, -np.exp(log_s) / unit * margins).sum()),
        bounds=(low, high),
        method="bounded",
    )
    inside = low + 0.01 < found.x < high - 0.01
    return float(np.exp(found.x)) / unit if inside else None
