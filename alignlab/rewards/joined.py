"""Several scorers of one objective as one reward: their mean, their least, or their mean less their disagreement.

Policies learn a scorer's errors; members that were made apart share few of them (Coste et al., arXiv 2310.02743).

Shape letters: N responses, K members.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

import torch
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed, unsealed
from alignlab.models.prompts import Encoded
from alignlab.rewards.base import Reward
from alignlab.rewards.normalise import Normalised, Statistics, statistics_of

MEMBER_STATISTICS = "members.json"
"""Objective -> member -> Statistics, in the folder of the run whose answers they are of."""


def joined(scores_KN: Tensor, join: str) -> Tensor:
    """One score of each response, float64, shape (N,).

    Args:
        scores_KN: the members' normalised scores.
        join: `mean`, `min`, or `uncertainty`: the mean minus the members' standard deviation (divided by K).
    """
    if join == "min":
        return scores_KN.min(dim=0).values
    mean_N = scores_KN.mean(dim=0)
    return mean_N - scores_KN.std(dim=0, correction=0) if join == "uncertainty" else mean_N


class JoinedReward(Reward):
    """Members in units of the reference's answers, joined. `scaled` comes before anything is scored.

    Args:
        name: the objective's, or its held-out scorer's; names the statistics, whatever group the scorer stands in.
        key: what it stands under, for errors.
        members: name -> reward, each in its own unit.
        join: see `joined`.
        statistics: of the members, where they are known.
    """

    def __init__(
        self,
        name: str,
        key: str,
        members: Mapping[str, Reward],
        join: str,
        statistics: Mapping[str, Statistics] | None = None,
    ) -> None:
        self.name, self.key, self.members, self.join, self.statistics = name, key, members, join, statistics
        found = statistics or {}
        self._scaled = {name: Normalised(one, found[name]) if found else one for name, one in members.items()}
        self.id = f"joined:{join}:" + "+".join(one.id for one in self._scaled.values())

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Joined scores, shape (n,)."""
        return self._joined(one.score(prompts, responses) for one in self._members())

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,)."""
        return self._joined(one.score_encoded(rows) for one in self._members())

    def release(self) -> None:
        """Drop what the members loaded."""
        for one in self.members.values():
            one.release()

    def scaled(self, rows: Sequence[Encoded], folder: Path, also_in: Iterable[Path] = ()) -> "JoinedReward":
        """The same reward with its members' statistics: known from earlier runs, else of these rows; kept in `folder`.

        Args:
            rows: responses that set the units, the training rows' or the reference's samples.
            folder: the run's, which gets the statistics.
            also_in: folders of earlier runs, the first to be looked into.
        """
        known = [_read(path).get(self.name, {}) for path in (*also_in, folder)]
        fits = (one for one in known if {name: found.id for name, found in one.items()} == self._ids())
        found = next(fits, None) or self._measured(rows)
        kept = {name: _as_json(own) for name, own in _read(folder).items()}
        write_json(folder / MEMBER_STATISTICS, sealed({**kept, self.name: _as_json(found)}))
        return JoinedReward(self.name, self.key, self.members, self.join, found)

    def _ids(self) -> dict[str, str]:
        return {name: one.id for name, one in self.members.items()}

    def _measured(self, rows: Sequence[Encoded]) -> dict[str, Statistics]:
        found = {}
        for name, one in self.members.items():
            found[name] = statistics_of(f"{self.key}.members.{name}", one, rows)
            one.release()
        return found

    def _members(self) -> Iterable[Reward]:
        if self.statistics is None:
            raise ConfigError(f"{self.key}.members: no answers of the reference are there to put them into one unit by")
        return self._scaled.values()

    def _joined(self, columns: Iterable[Tensor]) -> Tensor:
        return joined(torch.stack([column.double() for column in columns]), self.join).float()


def _as_json(found: Mapping[str, Statistics]) -> dict[str, dict[str, object]]:
    return {name: asdict(one) for name, one in found.items()}


def _read(folder: Path) -> dict[str, dict[str, Statistics]]:
    """What a run left in its folder; nothing where there is no such file."""
    file = folder / MEMBER_STATISTICS
    if not file.is_file():
        return {}
    try:
        found = unsealed(json.loads(file.read_text(encoding="utf-8")))
        return {key: {name: Statistics(**one) for name, one in own.items()} for key, own in found.items()}
    except (ValueError, TypeError, AttributeError) as error:
        raise ConfigError(f"{file}: no statistics of members: {error}; delete the file to have them anew") from None
