"""The implicit reward of a DPO-trained adapter: beta * log(pi / pi_ref)."""

from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.scoring.logps import response_logps
from alignlab.models.adapters import adapter_id, local_adapter, with_adapter
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.rewards.base import Reward


class ImplicitReward(Reward):
    """beta * log(pi(y|x) / pi_ref(y|x)), where the adapter is pi and the base model without it pi_ref.

    Args:
        base: the base model that the adapter was trained on.
        adapter: the adapter's folder, or its hub id.
        beta: the KL strength that it was trained with, 1/nat; it is the reward's scale.
        cache: keeps log-probabilities of reference and adapter.
        batch_size: rows of one forward.
        name: what the counts of the cache call it.
        key: what the adapter stands under, for errors.

    Source: Rafailov et al. 2023, arXiv:2305.18290, eq. 5.
    """

    def __init__(
        self,
        base: Base,
        adapter: Path,
        *,
        beta: float,
        cache: ScoreCache,
        batch_size: int,
        name: str,
        key: str = "adapter",
    ) -> None:
        self.base, self.adapter, self.beta, self._key = base, local_adapter(adapter, key=key), beta, key
        self.cache, self.batch_size, self.name = cache, batch_size, name
        self._policy_id = f"{base.scorer}+{adapter_id(self.adapter)}"
        self.id = f"{self._policy_id}:beta={float(beta)!r}"

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Rewards in nats * beta, shape (n,)."""
        return self.score_encoded(
            self.base.encoder.encode_all(list(zip(prompts, responses, strict=True)), sampled=True)
        )

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,)."""
        reference = reference_logps(self.base, rows, cache=self.cache, batch_size=self.batch_size)
        return (self.beta * (self.logps(rows) - reference)).float()

    def logps(self, rows: Sequence[Encoded]) -> Tensor:
        """Log pi of every row, nats, float64, shape (n,), from the cache where it is known."""
        with ExitStack() as stack:
            model: Any = None

            def compute(missing: list[Encoded]) -> Tensor:
                nonlocal model
                if model is None:  # attached once for all blocks of rows, and only where one is missing
                    model = stack.enter_context(with_adapter(self.base.model, self.adapter, key=self._key))
                label, autocast = f"{self.name} log-probs", self.base.autocast
                return response_logps(model, missing, batch_size=self.batch_size, label=label, autocast=autocast)

            return self.cache.scores(self._policy_id, rows, compute, name=self.name)

    def release(self) -> None:
        """The base model is the run's own; the adapter leaves it after each call."""


def reference_logps(base: Base, rows: Sequence[Encoded], *, cache: ScoreCache, batch_size: int) -> Tensor:
    """Log pi_ref of every row, nats, float64, shape (n,), from the cache where it is known.

    Args:
        base: the reference.
        rows: to score.
        cache: of scores.
        batch_size: rows of a forward.
    """

    def compute(missing: list[Encoded]) -> Tensor:
        label, autocast = "reference log-probs", base.autocast
        return response_logps(base.model, missing, batch_size=batch_size, label=label, autocast=autocast)

    return cache.scores(base.scorer, rows, compute, name="reference")
