"""Algorithms that train nothing: they measure policies and data, merge adapters, or collect runs."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    BALANCE,
    MEASURED,
    MODEL,
    OWN_PAIRS,
    PREFERENCES,
    SAMPLING,
    SCRATCH,
    TRAINING,
    UNMEASURED,
    adapter,
    both,
    either,
    gold_rewards,
    makes,
    no_card,
    off_toy,
    on_toy,
    others,
    scored,
    scratch,
    trains_rewards,
    unless_set,
    when,
)
from alignlab.config.schema.algorithm import SAMPLED, AlgorithmConfig
from alignlab.config.schema.ranges import within
from alignlab.config.schema.reward import DTYPES
from alignlab.config.uses import Uses, always
from alignlab.errors import require, require_one_of


def _own_limit(config: Any) -> str:
    return "on algorithm=audit; algorithm.max_length limits its texts"


@dataclass
class AuditConfig(AlgorithmConfig):
    """Score a preference set by rewards and a policy, without training."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **OWN_PAIRS,
            **when(trains_rewards, {**TRAINING, **SAMPLING}),
            "algorithm": always,
            **BALANCE,
            **dict.fromkeys(("reward", "algorithm.rewards"), others),
            "trainer.max_length": either(makes, either(scratch, _own_limit)),
            "trainer.per_device_eval_batch_size": always,
            "seed": either(on_toy, trains_rewards),
        },
        data="preferences",
        weighs=True,
        rewards=frozenset({"others", "named"}),
        makes_rewards=True,
        writes=("pairs.jsonl", "mislabelled.jsonl", "rewards.json", "members.json", "index.html"),
    )
    objective: str | None = MISSING
    beta: float = within("(0, inf)", "1/nat")
    adapter: str | None = MISSING
    rewards: dict[str, Any] = MISSING
    """As RewardedConfig's."""
    max_length: int | None = within("[2, inf)", "tokens")
    mislabelled: int = within("[0, inf)", "pairs")


@dataclass
class MergeConfig(AlgorithmConfig):
    """Add an adapter into its base model's weights."""

    uses: ClassVar[Uses] = Uses(reads={**MODEL, **SCRATCH, "algorithm": always}, writes=("model",))
    adapter: str | None = MISSING
    dtype: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.adapter), "algorithm.adapter", "null", "must name the folder of the adapter to merge")
        if self.dtype is not None:
            require_one_of("algorithm.dtype", self.dtype, DTYPES)


_SAMPLES = either(scored, gold_rewards)
_READS_ROWS = either(either(adapter, scored), scratch)
"""The reference alone is not measured on preferences."""


@dataclass
class EvaluateConfig(AlgorithmConfig):
    """Sample, score and compare with the reference, without training."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **when(_READS_ROWS, PREFERENCES),
            **MODEL,
            "dataset.name": always,
            "dataset.kind": always,
            "dataset.objectives": always,
            "dataset.use": always,
            "dataset.exact_samples": both(gold_rewards, on_toy),
            "scorers": always,
            **MEASURED,
            "generator": _SAMPLES,
            "generator.prompts": both(scored, off_toy),
            "seed": _SAMPLES,
            "algorithm": always,
            "algorithm.beta": either(no_card, unless_set("algorithm.adapter", ", whose card says it")),
            "trainer.max_length": _READS_ROWS,
            "trainer.per_device_eval_batch_size": _READS_ROWS,
        },
        data="preferences",
        samples=_SAMPLES,
        writes=("rewards.json", "members.json", *SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    adapter: str | None = MISSING
    beta: float = within("(0, inf)", "1/nat")


@dataclass
class PreviewConfig(AlgorithmConfig):
    """Estimate what could be had without training, from samples of the reference."""

    uses: ClassVar[Uses] = replace(
        EvaluateConfig.uses,
        reads={**EvaluateConfig.uses.reads, **UNMEASURED, "algorithm.beta": always},
        writes=("preview.csv", "preview.json"),
        after_sweep=None,
    )
    beta: float = within("(0, inf)", "1/nat")
    points: int = within("[2, 1000]")
    min_ess: float = within("[1, inf)")


@dataclass
class FrontConfig(AlgorithmConfig):
    """Collect runs into a front."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **MODEL,
            **SCRATCH,
            "algorithm": always,
            "target": always,
            "dataset.name": always,
            "dataset.kind": always,
            "dataset.objectives": on_toy,
            "dataset.use": on_toy,
            "dataset.exact_samples": on_toy,
        },
        collects=always,
    )
    runs: list[str] = MISSING


@dataclass
class IndexConfig(AlgorithmConfig):
    """List the runs and fronts of a root."""

    uses: ClassVar[Uses] = Uses(reads={"paths": always, "force": always, "algorithm": always}, collects=always)
