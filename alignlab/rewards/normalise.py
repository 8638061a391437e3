"""Rewards on one scale: within-prompt differences of standard deviation 1 on the training rows, kept for later runs.

A constant per prompt cancels in every pair, so the spread over all responses says nothing of how strongly a reward
tilts: two rewards of equal pair differences would be weighted 3:1 where one differs much from prompt to prompt.

Shape letters: N responses, P prompts.
"""

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed, unsealed
from alignlab.models.prompts import Encoded
from alignlab.rewards.base import Reward

STATISTICS = "rewards.json"
"""Objective -> Statistics, in the run folder, beside the adapter."""


@dataclass(frozen=True)
class Statistics:
    """What a reward is normalised by."""

    id: str
    """The reward's."""
    mean: float
    difference_std: float
    """Standard deviation of the difference between two responses to one prompt."""
    n: int
    """Training responses behind them."""
    prompts: int
    """Prompts with two or more responses."""


_NUMBER = r"-?[\d.]+(?:e[-+]?\d+)?"
_UNIT = re.compile(
    rf":beta={_NUMBER}|:mean={_NUMBER}:difference_std={_NUMBER}|:lengths={_NUMBER}"
    rf"|(?<=length:tokens):{_NUMBER}|(?<=length:words):{_NUMBER}"
)
"""What the id of a reward says of its unit, or of how it counts lengths; one of members in their units has several."""


def without_unit(reward_id: str) -> str:
    """The id of a reward without its unit, and its members'; equal for scorers that differ in their units alone."""
    return _UNIT.sub("", reward_id)


class Normalised(Reward):
    """(r - mean) / difference_std of another reward.

    Args:
        reward: the reward.
        statistics: of its scores on the training rows.
    """

    def __init__(self, reward: Reward, statistics: Statistics) -> None:
        self.reward, self.statistics = reward, statistics
        self.id = f"{reward.id}:mean={statistics.mean!r}:difference_std={statistics.difference_std!r}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Normalised scores, shape (n,)."""
        return self._z(self.reward.score(prompts, responses))

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,)."""
        return self._z(self.reward.score_encoded(rows))

    def release(self) -> None:
        """Drop what the reward loaded."""
        self.reward.release()

    def _z(self, scores: Tensor) -> Tensor:
        z: Tensor = (scores.double() - self.statistics.mean) / self.statistics.difference_std
        return z.float()


def statistics_of(key: str, reward: Reward, rows: Sequence[Encoded]) -> Statistics:
    """Statistics of a reward over the training rows, each response counted once.

    Args:
        key: of the reward in the config, for messages.
        reward: what is normalised.
        rows: distinct responses; those with the same prompt tokens are of one prompt.

    Raises:
        ConfigError: if no prompt has two responses that score differently.
    """
    scores_N = reward.score_encoded(rows).double()
    names = {prompt: index for index, prompt in enumerate(dict.fromkeys(tuple(row.prompt_ids) for row in rows))}
    index_N = torch.tensor([names[tuple(row.prompt_ids)] for row in rows], dtype=torch.long)
    counts_P = torch.bincount(index_N, minlength=len(names)).double()
    means_P = torch.zeros(len(names), dtype=torch.float64).index_add_(0, index_N, scores_N) / counts_P
    residuals_N = scores_N - means_P[index_N]
    freedom = float((counts_P - 1).sum())
    # two independent responses differ by twice the variance that they have within the prompt
    std = float((2 * residuals_N.square().sum() / freedom).sqrt()) if freedom > 0 else 0.0
    if not std > 0:
        raise ConfigError(
            f"{key}.normalise=true: no prompt of the {len(names)} has two responses that score differently"
        )
    return Statistics(reward.id, float(scores_N.mean()), std, len(rows), int((counts_P > 1).sum()))


def read_statistics(folder: Path) -> dict[str, Statistics]:
    """The statistics that a run left in its folder; none where there is no such file.

    Statistics of earlier versions, by the spread over all responses, are left out, so that they are worked out anew.

    Raises:
        ConfigError: if the file holds something else.
    """
    file = folder / STATISTICS
    if not file.is_file():
        return {}
    try:
        found = unsealed(json.loads(file.read_text(encoding="utf-8")))
        earlier = {"id", "mean", "std", "n"}
        return {str(name): Statistics(**values) for name, values in found.items() if set(values) != earlier}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: no statistics of rewards: {error}; delete the file to have them anew") from None


def write_statistics(folder: Path, statistics: dict[str, Statistics]) -> None:
    """Write them into a run's folder."""
    write_json(folder / STATISTICS, sealed({name: asdict(values) for name, values in statistics.items()}))
