"""What scored pairs say of rewards, labels and a policy: MODPO losses, agreement, spread, suspects. Pure functions.

Shape letters: B pairs; the last axis of (B, 2) is chosen, rejected.
"""

from collections.abc import Container, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from alignlab.config.objectives import Objectives
from alignlab.data.records import Pair, prompt_as_json
from alignlab.engine.scoring.rows import EncodedPairs
from alignlab.stats import Interval, mean_interval, share_interval

QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)


def modpo_gaps(
    ref_logps_B2: Tensor,
    policy_logps_B2: Tensor,
    margins_B2: Mapping[str, Tensor],
    *,
    objectives: Objectives,
    beta: float,
) -> Tensor:
    """What MODPO takes the sigmoid of: the policy's own reward for the trained objective, chosen minus rejected, (B,).

        (beta/w_k) * D(log pi - log pi_ref) - (1/w_k) * sum_{i != k} w_i D r_i

    Args:
        ref_logps_B2: log pi_ref, summed over response tokens, nats.
        policy_logps_B2: log pi.
        margins_B2: the rewards of the other objectives; further ones have no weight here.
        objectives: which objective is trained, and the weights; the trained one's must be > 0.
        beta: KL strength, 1/nat.

    Source: Zhou et al. 2023, arXiv:2310.03708, eq. 11.
    """
    total_B = beta * _gap(policy_logps_B2.double() - ref_logps_B2.double())
    for name, weight in objectives.others.items():
        total_B = total_B - weight * _gap(margins_B2[name].double())
    return total_B / objectives.weights[objectives.trained]


def modpo_losses(gaps_B: Tensor) -> Tensor:
    """-log sigmoid of the gaps, shape (B,), nats."""
    return -torch.nn.functional.logsigmoid(gaps_B.double())


def agreement(gaps: Sequence[float], groups: Sequence[str]) -> Interval:
    """Share of pairs in which the chosen response has the higher reward (a tie counts half), over prompts."""
    return share_interval([0.5 if gap == 0 else float(gap > 0) for gap in gaps], groups)


@dataclass(frozen=True)
class OwnGaps:
    """The pairs by one objective's own labels, and its reward of chosen minus rejected."""

    ids: list[str]
    groups: list[str]
    gaps: list[float]

    def of_groups(self, wanted: Container[str]) -> "OwnGaps":
        """Those of some prompts."""
        kept = [index for index, group in enumerate(self.groups) if group in wanted]
        groups = [self.groups[index] for index in kept]
        return OwnGaps([self.ids[index] for index in kept], groups, [self.gaps[index] for index in kept])


@dataclass(frozen=True)
class Spread:
    """How far a reward parts the two responses of a pair, in its own unit."""

    gap: Interval
    """Mean of chosen minus rejected."""
    std: float
    quantiles: dict[str, float]

    def as_record(self) -> dict[str, object]:
        """The shape of a metric in result.json, with the spread beside it."""
        return {**self.gap.as_record(), "std": self.std, "quantiles": self.quantiles}


def spread(gaps: Sequence[float], groups: Sequence[str]) -> Spread:
    """Mean, standard deviation and quantiles of at least one gap."""
    values = torch.tensor(gaps, dtype=torch.float64)
    found = torch.quantile(values, torch.tensor(QUANTILES, dtype=torch.float64)).tolist()
    return Spread(
        gap=mean_interval(gaps, groups),
        std=float(values.std(correction=0)),
        quantiles={f"{level:g}": value for level, value in zip(QUANTILES, found, strict=True)},
    )


@dataclass(frozen=True)
class Suspect:
    """A pair whose label something doubts."""

    id: str
    objective: str
    by: str
    """`reward`, the objective's own; or `policy`, by the reward that its log-ratios imply."""
    gap: float
    """Reward of chosen minus rejected: below 0."""

    def as_record(self) -> dict[str, object]:
        """A line of mislabelled.jsonl; the probability is Bradley-Terry's, right where the reward's unit is a logit."""
        probability = float(torch.sigmoid(torch.tensor(self.gap, dtype=torch.float64)))
        return {**self.__dict__, "label_probability": probability}


def suspects(ids: Sequence[str], gaps: Iterable[float], *, objective: str, by: str) -> list[Suspect]:
    """Every pair whose label a reward contradicts, the most decidedly contradicted first.

    Args:
        ids: of the pairs.
        gaps: reward of chosen minus rejected, a value a pair.
        objective: whose labels they are.
        by: name of the reward.
    """
    found = [Suspect(pair, objective, by, gap) for pair, gap in zip(ids, gaps, strict=True) if gap < 0]
    return sorted(found, key=lambda suspect: (suspect.gap, suspect.id))


@dataclass(frozen=True)
class Scored:
    """The pairs of the trained objective with what is known of them; the tensors hold those that could be scored."""

    pairs: list[Pair]
    encoded: EncodedPairs
    ref_logps_B2: Tensor
    policy_logps_B2: Tensor | None
    margins_B2: dict[str, Tensor]
    gaps_B: Tensor | None
    """What MODPO takes the sigmoid of; None without a policy."""

    @property
    def groups(self) -> list[str]:
        """The prompt of each scored pair."""
        return [pair.group for pair in self.encoded.pairs]

    def counts(self) -> dict[str, int]:
        """Pairs, those left out because their prompt alone fills the limit, and those with a response that is cut."""
        cut = sum(pair.cut for pair in self.encoded.pairs)
        return {"pairs": len(self.pairs), "too_long": self.encoded.too_long, "cut": cut, "merged": self.encoded.merged}

    def records(self) -> list[dict[str, Any]]:
        """pairs.jsonl: one object a pair, in the data's order; null where a pair could not be scored."""
        indices = {pair.id: index for index, pair in enumerate(self.encoded.pairs)}
        return [self._record(pair, indices.get(pair.id)) for pair in self.pairs]

    def _record(self, pair: Pair, index: int | None) -> dict[str, Any]:
        texts = {
            "id": pair.id,
            "prompt": prompt_as_json(pair.prompt),
            "chosen": pair.chosen,
            "rejected": pair.rejected,
        }
        record: dict[str, Any] = {**texts, "objective": pair.objective}
        record["cut"] = None if index is None else self.encoded.pairs[index].cut
        record |= _two("ref", self.ref_logps_B2, index)
        margins = {name: None if index is None else values[index].tolist() for name, values in self.margins_B2.items()}
        record["margins"] = margins
        if self.policy_logps_B2 is not None and self.gaps_B is not None:
            record |= _two("policy", self.policy_logps_B2, index)
            record["loss"] = None if index is None else float(modpo_losses(self.gaps_B[index]))
        return record


def by_pair(scores: Tensor) -> Tensor:
    """From all chosen, then all rejected to (B, 2), float64."""
    return torch.stack(scores.double().chunk(2), dim=1)


def gaps_of(values_B2: Tensor) -> list[float]:
    """Chosen minus rejected."""
    gaps: list[float] = _gap(values_B2).tolist()
    return gaps


def _two(prefix: str, values_B2: Tensor, index: int | None) -> dict[str, float | None]:
    chosen, rejected = (None, None) if index is None else values_B2[index].tolist()
    return {f"{prefix}_chosen_logp": chosen, f"{prefix}_rejected_logp": rejected}


def _gap(values_B2: Tensor) -> Tensor:
    return values_B2[:, 0] - values_B2[:, 1]
