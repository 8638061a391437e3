"""z-scores by statistics of the training rows, which are kept and never recomputed on other data."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.models.prompts import Encoded
from alignlab.rewards.base import Reward

STATISTICS = "rewards.json"
"""Objective -> Statistics, in the run folder, beside the adapter."""


@dataclass(frozen=True)
class Statistics:
    """What a reward's z-score is taken by."""

    id: str
    """The reward's."""
    mean: float
    std: float
    n: int
    """Training responses behind them."""


class Normalised(Reward):
    """(r - mean) / std of another reward.

    Args:
        reward: the reward.
        statistics: of its scores on the training rows.
    """

    def __init__(self, reward: Reward, statistics: Statistics) -> None:
        self.reward, self.statistics = reward, statistics
        self.id = f"{reward.id}:mean={statistics.mean!r}:std={statistics.std!r}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """z-scores, shape (n,)."""
        return self._z(self.reward.score(prompts, responses))

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,)."""
        return self._z(self.reward.score_encoded(rows))

    def release(self) -> None:
        """Drops what the reward loaded."""
        self.reward.release()

    def _z(self, scores: Tensor) -> Tensor:
        z: Tensor = (scores.double() - self.statistics.mean) / self.statistics.std
        return z.float()


def statistics_of(key: str, reward: Reward, rows: Sequence[Encoded]) -> Statistics:
    """Mean and standard deviation of a reward over responses, each counted once.

    Raises:
        ConfigError: if all of them score the same.
    """
    scores = reward.score_encoded(rows).double()
    std = float(scores.std()) if len(scores) > 1 else 0.0
    if not std > 0:
        raise ConfigError(f"{key}.normalise=true: all {len(scores)} training responses score the same")
    return Statistics(reward.id, float(scores.mean()), std, len(scores))


def read_statistics(folder: Path) -> dict[str, Statistics]:
    """The statistics that a run left in its folder; none where there is no such file.

    Raises:
        ConfigError: if the file holds something else.
    """
    file = folder / STATISTICS
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
        return {str(name): Statistics(**values) for name, values in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: no statistics of rewards: {error}") from None


def write_statistics(folder: Path, statistics: dict[str, Statistics]) -> None:
    """Writes them into a run's folder."""
    write_json(folder / STATISTICS, {name: asdict(values) for name, values in statistics.items()})
