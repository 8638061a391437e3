"""Algorithms that train on preferences: one type for each set of keys."""

from dataclasses import dataclass, replace
from typing import Any, ClassVar

from omegaconf import MISSING

from alignlab.config.conditions import (
    BALANCE,
    LOSS,
    MODEL,
    OF_PAIRS,
    OWN_PAIRS,
    PREFERENCES,
    SAMPLING,
    TRAINING,
    both,
    either,
    from_prompts,
    gold_rewards,
    if_kind,
    on_toy,
    others,
    repeats,
    trains_at_w,
    trains_rewards,
    unless_set,
    when,
)
from alignlab.config.names import (
    LOSSES,
    MADE_REWARDS,
    MOST_ROUNDS,
    PER_TOKEN_LOSSES,
    REFUSED_LOSSES,
    REGRESSION_LOSSES,
    ROUNDS_PICTURE,
    SMOOTHED_LOSSES,
    TILTABLE_LOSSES,
)
from alignlab.config.schema.algorithm import REWARDED_POLICY, SAMPLED, TRAINED_POLICY, AlgorithmConfig, RewardedConfig
from alignlab.config.schema.ranges import within
from alignlab.config.schema.reward import require_probe
from alignlab.config.uses import Uses, always, not_here
from alignlab.errors import ConfigError, require, require_one_of

MIN_MODPO_WEIGHT = 0.05
"""Smallest trained weight: the loss multiplies log-ratios by 1/w, and below this few pairs still carry gradient."""


ROUNDS = f"[1, {MOST_ROUNDS}]"


def _require_preference_loss(loss_type: str, label_smoothing: float) -> None:
    """Refuse a loss that is none of TRL's, does not fit, or has a smoothing that it has no use for.

    Args:
        loss_type: algorithm.loss_type.
        label_smoothing: algorithm.label_smoothing.
    """
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
class PreferenceLossConfig(AlgorithmConfig):
    """What algorithms have that train by a loss on preference pairs."""

    beta: float = within("(0, inf)", "1/nat")
    loss_type: str = MISSING
    label_smoothing: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        _require_preference_loss(self.loss_type, self.label_smoothing)


@dataclass
class PreferenceConfig(PreferenceLossConfig):
    """DPO and its kin, on the pairs of one objective."""

    objective: str | None = MISSING


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
            **dict.fromkeys(OF_PAIRS, _IMPLICIT),
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
        writes=("adapter", "reward", *SAMPLED),
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

    uses: ClassVar[Uses] = replace(
        TRAINED_POLICY,
        reads={**TRAINED_POLICY.reads, **LOSS, "algorithm.rounds": repeats},
        writes=(*TRAINED_POLICY.writes, ROUNDS_PICTURE),
    )
    sft_weight: float = within("[0, inf)")
    rounds: int = within(ROUNDS)


@dataclass
class ModpoConfig(DpoConfig):
    """DPO against a reference that the other objectives' rewards tilt."""

    uses: ClassVar[Uses] = replace(
        DpoConfig.uses,
        reads={
            **DpoConfig.uses.reads,
            **when(either(trains_at_w, trains_rewards), TRAINING),
            **when(trains_at_w, {f"algorithm.{key}": LOSS.get(key, always) for key in ("loss_type", "sft_weight")}),
            "algorithm.label_smoothing": both(trains_at_w, LOSS["algorithm.label_smoothing"]),
            "algorithm.rounds": both(trains_at_w, repeats),
            **BALANCE,
            **dict.fromkeys(("reward", "algorithm.rewards", "algorithm.check_rewards"), others),
            "trainer.per_device_eval_batch_size": always,
            "trainer.max_length": always,
            "seed": always,
            "tracker": always,
        },
        weighs=True,
        rewards=frozenset({"others"}),
        makes_rewards=True,
        writes=(*DpoConfig.uses.writes, "rewards.json", "members.json"),
    )
    rewards: dict[str, Any] = MISSING
    """As RewardedConfig's."""
    check_rewards: bool = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        rule = "divides each response's reward by its length; choose algorithm=dpo, or one of "
        fits = self.loss_type not in PER_TOKEN_LOSSES
        require(fits, "algorithm.loss_type", self.loss_type, rule + ", ".join(TILTABLE_LOSSES))


@dataclass
class RebelConfig(RewardedConfig):
    """Teach the policy the weighted reward differences of any two responses."""

    uses: ClassVar[Uses] = replace(
        REWARDED_POLICY,
        reads={
            **REWARDED_POLICY.reads,
            **BALANCE,
            "algorithm.threshold": if_kind("algorithm.loss", "huber", "clipped"),
            "algorithm.rounds": repeats,
        },
        weighs=True,
        writes=(*REWARDED_POLICY.writes, ROUNDS_PICTURE),
    )
    loss: str = MISSING
    threshold: float = within("(0, inf)", "the rewards' unit")
    rounds: int = within(ROUNDS)

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.loss", self.loss, REGRESSION_LOSSES)


@dataclass
class SftConfig(AlgorithmConfig):
    """Supervised fine-tuning on a preference set's responses."""

    uses: ClassVar[Uses] = Uses(
        reads={
            **PREFERENCES,
            **OWN_PAIRS,
            **MODEL,
            **TRAINING,
            **dict.fromkeys(OF_PAIRS, not_here),
            "algorithm": always,
        },
        data="preferences",
        trains=True,
        writes=("adapter",),
    )
    objective: str | None = MISSING
    responses: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("algorithm.responses", self.responses, ("chosen", "both"))
