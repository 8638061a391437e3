"""Algorithms: one type for each set of keys."""

import math
from dataclasses import dataclass
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    LOSS,
    MEASURED,
    MODEL,
    ON_ONE_PROCESS,
    OWN_PAIRS,
    PREFERENCES,
    SAMPLING,
    SCORING,
    SCRATCH,
    TRAINING,
    adapter,
    both,
    either,
    from_prompts,
    gold_rewards,
    if_kind,
    makes,
    no_card,
    off_toy,
    on_toy,
    others,
    repeats,
    scored,
    scratch,
    trains_at_w,
    unless_set,
    when,
)
from alignlab.config.names import (
    LOSSES,
    MADE_REWARDS,
    MOST_ROUNDS,
    PER_TOKEN_LOSSES,
    QUALITY_FILES,
    REFUSED_LOSSES,
    REGRESSION_LOSSES,
    ROUNDS_PICTURE,
    SMOOTHED_LOSSES,
    TILTABLE_LOSSES,
)
from alignlab.config.schema.reward import DTYPES, require_probe
from alignlab.config.uses import Uses, always
from alignlab.errors import ConfigError, require, require_one_of

MIN_MODPO_WEIGHT = 0.05
"""Smallest trained weight: the loss multiplies log-ratios by 1/w, and below this few pairs still carry gradient."""


@dataclass
class AlgorithmConfig:
    """What every algorithm has."""

    uses: ClassVar[Uses]
    """What the algorithm reads, writes and ends in; everything that depends on the algorithm's kind follows it."""
    name: str = MISSING


_SAMPLED = ("generations.jsonl", "scores.jsonl", *QUALITY_FILES)


def _require_rounds(rounds: int) -> None:
    require(1 <= rounds <= MOST_ROUNDS, "algorithm.rounds", rounds, f"must be in 1..{MOST_ROUNDS}")


def require_preference_loss(beta: float, loss_type: str, label_smoothing: float) -> None:
    """Refuse a loss that is none of TRL's, does not fit, or has a smoothing that it has no use for.

    Args:
        beta: algorithm.beta, > 0, in 1/nat.
        loss_type: algorithm.loss_type.
        label_smoothing: algorithm.label_smoothing.
    """
    require(0 < beta < math.inf, "algorithm.beta", beta, "must be a finite number > 0, in 1/nat")
    if loss_type in REFUSED_LOSSES:
        raise ConfigError(f"algorithm.loss_type={loss_type}: refused, it {REFUSED_LOSSES[loss_type]}")
    require_one_of("algorithm.loss_type", loss_type, LOSSES)
    require(0 <= label_smoothing < 0.5, "algorithm.label_smoothing", label_smoothing, "must be in [0, 0.5)")
    smoothed = loss_type in SMOOTHED_LOSSES
    rule = f"must be 0 with algorithm.loss_type={loss_type}; algorithm.loss_type=robust has a use for it"
    if smoothed:
        rule = f"must be > 0 with algorithm.loss_type={loss_type}"
    require(smoothed == (label_smoothing > 0), "algorithm.label_smoothing", label_smoothing, rule)


@dataclass
class PreferenceConfig(AlgorithmConfig):
    """DPO and its kin."""

    objective: str | None = MISSING
    beta: float = MISSING
    loss_type: str = MISSING
    label_smoothing: float = MISSING

    def __post_init__(self) -> None:
        require_preference_loss(self.beta, self.loss_type, self.label_smoothing)


_IMPLICIT = if_kind("algorithm.kind", "implicit")
_TRAINED = if_kind("algorithm.kind", "implicit", "classifier", "cost")
_PROBE = if_kind("algorithm.kind", "probe")


@dataclass
class RewardModelConfig(PreferenceConfig):
    """A reward for one objective: implicit (DPO); or a classifier, cost model or probe, without beta and loss."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **when(_TRAINED, TRAINING),
            **when(_IMPLICIT, {**LOSS, **SAMPLING}),
            "generator": either(from_prompts, both(_IMPLICIT, gold_rewards)),
            "algorithm": always,
            "hardware.processes": either(_IMPLICIT, ON_ONE_PROCESS["hardware.processes"]),
            "hardware.fsdp": either(_IMPLICIT, ON_ONE_PROCESS["hardware.fsdp"]),
            **{f"algorithm.{key}": _IMPLICIT for key in ("beta", "loss_type")},
            **{f"algorithm.{key}": _PROBE for key in ("layers", "pooling", "length_term", "ridge")},
            "peft": both(_TRAINED, unless_set("algorithm.full", "=true")),
            "trainer.max_length": always,
            "trainer.per_device_eval_batch_size": always,
            "seed": either(_TRAINED, on_toy),
        },
        data="preferences",
        trains=True,
        trained=1,
        samples=both(_IMPLICIT, gold_rewards),
        writes=("adapter", "reward", *_SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    kind: str = MISSING
    full: bool = MISSING
    layers: list[float] = MISSING
    pooling: str = MISSING
    length_term: str = MISSING
    ridge: float | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.kind", self.kind, MADE_REWARDS)
        rule = f"trains all weights of a classifier; with algorithm.kind={self.kind} there is none"
        require(not self.full or self.kind in ("classifier", "cost"), "algorithm.full", "true", rule)
        require_probe("algorithm", self.layers, self.pooling, self.length_term, self.ridge)


@dataclass
class DpoConfig(PreferenceConfig):
    """DPO, whose loss may also pull at the chosen responses themselves."""

    uses: ClassVar[Uses] = Uses(
        reads={**PREFERENCES, **MODEL, **TRAINING, **LOSS, **SAMPLING, **SCORING, "algorithm.rounds": repeats},
        data="preferences",
        trains=True,
        samples=gold_rewards,
        writes=("adapter", ROUNDS_PICTURE, *_SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    sft_weight: float = MISSING
    rounds: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.sft_weight >= 0, "algorithm.sft_weight", self.sft_weight, "must be >= 0")
        _require_rounds(self.rounds)


@dataclass
class ModpoConfig(DpoConfig):
    """DPO against a reference that the other objectives' rewards tilt."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **DpoConfig.uses.reads,
            **when(either(trains_at_w, makes), TRAINING),
            **when(trains_at_w, {f"algorithm.{key}": LOSS.get(key, always) for key in ("loss_type", "sft_weight")}),
            "algorithm.label_smoothing": both(trains_at_w, LOSS["algorithm.label_smoothing"]),
            "algorithm.rounds": both(trains_at_w, repeats),
            "w": always,
            "weights": always,
            **dict.fromkeys(("reward", "algorithm.rewards", "algorithm.check_rewards"), others),
            "trainer.per_device_eval_batch_size": always,
            "trainer.max_length": always,
            "seed": always,
            "tracker": always,
        },
        data="preferences",
        trains=True,
        weighs=True,
        rewards=frozenset({"others"}),
        makes_rewards=True,
        samples=gold_rewards,
        writes=("adapter", "rewards.json", ROUNDS_PICTURE, *_SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig. Untyped for Hydra, which cannot add a typed entry from the command line; RunConfig
    fills it up and types it."""
    check_rewards: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "divides each response's reward by its length; choose algorithm=dpo, or one of "
        fits = self.loss_type not in PER_TOKEN_LOSSES
        require(fits, "algorithm.loss_type", self.loss_type, rule + ", ".join(TILTABLE_LOSSES))


@dataclass
class RebelConfig(AlgorithmConfig):
    """Teach the policy the weighted reward differences of any two responses."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **MODEL,
            **TRAINING,
            **SAMPLING,
            **SCORING,
            "algorithm": always,
            "algorithm.threshold": if_kind("algorithm.loss", "huber", "clipped"),
            "algorithm.reward_beta": makes,
            "algorithm.rounds": repeats,
            "reward": always,
            "reward.normalise": unless_set("algorithm.normalise", "=true"),
            "w": always,
            "weights": always,
        },
        data="preferences",
        trains=True,
        weighs=True,
        labels=False,
        rewards=frozenset({"others"}),
        makes_rewards=True,
        samples=gold_rewards,
        writes=("adapter", "rewards.json", ROUNDS_PICTURE, *_SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    beta: float = MISSING
    loss: str = MISSING
    threshold: float = MISSING
    normalise: bool = MISSING
    reward_beta: float = MISSING
    rewards: dict[str, Any] = MISSING
    """As ModpoConfig's."""
    check_rewards: bool = MISSING
    rounds: int = MISSING

    def __post_init__(self) -> None:
        _require_rounds(self.rounds)
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        rule = "must be a finite number > 0, in 1/nat"
        require(0 < self.reward_beta < math.inf, "algorithm.reward_beta", self.reward_beta, rule)
        require_one_of("algorithm.loss", self.loss, REGRESSION_LOSSES)
        rule = "must be a finite number > 0, in the rewards' unit"
        require(0 < self.threshold < math.inf, "algorithm.threshold", self.threshold, rule)


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
            **when(makes, {**TRAINING, **SAMPLING}),
            "algorithm": always,
            "w": always,
            "weights": always,
            **dict.fromkeys(("reward", "algorithm.rewards"), others),
            "trainer.max_length": either(makes, either(scratch, _own_limit)),
            "trainer.per_device_eval_batch_size": always,
            "seed": either(on_toy, makes),
        },
        data="preferences",
        weighs=True,
        rewards=frozenset({"others", "named"}),
        makes_rewards=True,
        writes=("pairs.jsonl", "mislabelled.jsonl", "rewards.json", "index.html"),
    )
    objective: str | None = MISSING
    beta: float = MISSING
    adapter: str | None = MISSING
    rewards: dict[str, Any] = MISSING
    """As ModpoConfig's."""
    max_length: int | None = MISSING
    mislabelled: int = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        limit = self.max_length
        require(limit is None or limit > 1, "algorithm.max_length", limit, "must be > 1 token, or null")
        require(self.mislabelled >= 0, "algorithm.mislabelled", self.mislabelled, "must be >= 0 pairs")


@dataclass
class SftConfig(AlgorithmConfig):
    """Supervised fine-tuning on a preference set's responses."""

    uses: ClassVar[Uses] = Uses(
        reads={**PREFERENCES, **OWN_PAIRS, **MODEL, **TRAINING, **ON_ONE_PROCESS, "algorithm": always},
        data="preferences",
        trains=True,
        writes=("adapter",),
    )
    objective: str | None = MISSING
    responses: str = MISSING

    def __post_init__(self) -> None:
        require_one_of("algorithm.responses", self.responses, ("chosen", "both"))


@dataclass
class MergeConfig(AlgorithmConfig):
    """Add an adapter into its base model's weights."""

    uses: ClassVar[Uses] = Uses(reads={**MODEL, **SCRATCH, "algorithm": always}, writes=("model",))
    adapter: str | None = MISSING
    dtype: str | None = MISSING

    def __post_init__(self) -> None:
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
            **MEASURED,
            "dataset.exact_samples": both(gold_rewards, on_toy),
            "scorers": always,
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
        writes=("rewards.json", *_SAMPLED),
        after_sweep="alignlab.jobs.front",
    )
    adapter: str | None = MISSING
    beta: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")


@dataclass
class PreviewConfig(AlgorithmConfig):
    """Estimate what could be had without training, from samples of the reference."""

    uses: ClassVar[Uses] = Uses(
        reads={**EvaluateConfig.uses.reads, "algorithm.beta": always},
        data="preferences",
        samples=_SAMPLES,
        writes=("preview.csv", "preview.json"),
    )
    beta: float = MISSING
    points: int = MISSING
    min_ess: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        require(2 <= self.points <= 1000, "algorithm.points", self.points, "must be in 2..1000")
        require(1 <= self.min_ess < math.inf, "algorithm.min_ess", self.min_ess, "must be a finite number >= 1")


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
