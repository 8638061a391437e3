"""Whether a reward says what its objective's own labels say: its sign and its scale."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import minimize_scalar  # type: ignore[import-untyped]

from alignlab.engine.scoring.rows import EncodedPair
from alignlab.front.metrics import Interval, mean_interval
from alignlab.rewards.base import Reward

Floats = NDArray[np.float64]
MOST_PAIRS = 500
"""Pairs that a check looks at."""
SCALES = (1e-3, 1e3)
"""Where a reward's scale is looked for."""


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
    def is_reversed(self) -> bool:
        """Significantly below one half."""
        return self.share.high is not None and self.share.high < 0.5

    def as_record(self) -> dict[str, object]:
        """The shape of result.json."""
        return {"agreement": self.share.as_record(), "spread": self.spread, "scale": self.scale}


def agreement(reward: Reward, pairs: Sequence[EncodedPair]) -> Agreement:
    """Scores at most MOST_PAIRS of the pairs, the same ones whatever their order."""
    looked_at = sorted(pairs, key=lambda pair: pair.id)[:MOST_PAIRS]
    if not looked_at:
        return Agreement(mean_interval([]), None, None)
    rows = [pair.chosen for pair in looked_at] + [pair.rejected for pair in looked_at]
    chosen, rejected = reward.score_encoded(rows).double().chunk(2)
    margins: Floats = (chosen - rejected).numpy()
    right = np.where(margins == 0, 0.5, margins > 0)
    spread = float(margins.std(ddof=1)) if len(margins) > 1 else None
    return Agreement(mean_interval(right, [pair.group for pair in looked_at]), spread, fitted_scale(margins))


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
