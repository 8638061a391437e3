"""Rewards: where the score of an objective comes from, one type a kind."""

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, fields
from typing import Any, TypeVar, cast

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from alignlab.config.schema.judge import JudgeConfig, require_patience, require_server
from alignlab.errors import ConfigError, nearest, require, require_fields, require_one_of

DTYPES = ("float32", "bfloat16", "float16")


@dataclass
class RewardConfig:
    """What every kind of reward has."""

    kind: str = MISSING
    normalise: bool = MISSING


@dataclass
class ImplicitConfig(RewardConfig):
    """beta*log(pi/pi_ref) of a DPO-trained adapter. null means: made by a reward_model run."""

    adapter: str | None = MISSING
    beta: float | None = MISSING

    def __post_init__(self) -> None:
        good = self.beta is None or 0 < self.beta < math.inf
        require(good, "reward.beta", self.beta, "must be a finite number > 0, in 1/nat")


@dataclass
class GoldConfig(RewardConfig):
    """The dataset's own program; the toy has one for each objective."""


@dataclass
class ScorerConfig(RewardConfig):
    """A network of its own that reads prompt and response and ends in one number."""

    path: str | None = MISSING
    revision: str | None = MISSING
    template: str | None = MISSING
    eos: bool = MISSING
    max_length: int = MISSING
    dtype: str = MISSING

    def __post_init__(self) -> None:
        template = self.template
        require(
            template in (None, "pair") or "{raw_prompt}" in str(template),
            "reward.template",
            repr(template),
            "must contain {raw_prompt}, or be null for the model's own chat template, or pair for (prompt, response)",
        )
        require_fields("reward.template", self.template, ("raw_prompt", "response"))
        require(self.max_length > 1, "reward.max_length", self.max_length, "must be > 1 token")
        require_one_of("reward.dtype", self.dtype, DTYPES)


@dataclass
class ClassifierConfig(ScorerConfig):
    """Any sequence classifier with one label. path=null means: trained by a reward_model run."""

    negate: bool = MISSING


@dataclass
class CostConfig(RewardConfig):
    """A cost model trained here, whose card says how it reads. path=null means: trained by a reward_model run."""

    path: str | None = MISSING
    dtype: str = MISSING

    def __post_init__(self) -> None:
        require_one_of("reward.dtype", self.dtype, DTYPES)


POOLINGS = ("mean", "last")
LENGTH_TERMS = ("none", "score", "control")


def require_probe(key: str, layers: list[float], pooling: str, length_term: str, ridge: float | None) -> None:
    """Refuse settings that no probe can be fitted by.

    Args:
        key: what they stand under, `algorithm` or `reward`.
        layers: fractions of the base's depth.
        pooling: how states of a response's tokens become one.
        length_term: what the response's length does.
        ridge: strength of the penalty, None to choose it.
    """
    good = bool(layers) and all(0 < layer <= 1 for layer in layers) and len(set(layers)) == len(layers)
    require(good, f"{key}.layers", layers, "must be different fractions of the model's depth, each above 0 and up to 1")
    require_one_of(f"{key}.pooling", pooling, POOLINGS)
    require_one_of(f"{key}.length_term", length_term, LENGTH_TERMS)
    good = ridge is None or 0 < ridge < math.inf
    require(good, f"{key}.ridge", ridge, "must be a finite number > 0, or null to choose it by cross-validation")


@dataclass
class ProbeConfig(RewardConfig):
    """A linear head on a base model's hidden states. path=null: fitted by a reward_model run, by the other keys."""

    path: str | None = MISSING
    labels: str | None = MISSING
    labels_path: str | None = MISSING
    labels_rows: int | None = MISSING
    layers: list[float] = MISSING
    pooling: str = MISSING
    length_term: str = MISSING
    ridge: float | None = MISSING

    def __post_init__(self) -> None:
        require_probe("reward", self.layers, self.pooling, self.length_term, self.ridge)
        named = self.labels_path is None or self.labels is not None
        rule = "needs reward.labels, the data set in whose columns it is"
        require(named, "reward.labels_path", self.labels_path, rule)
        enough = self.labels_rows is None or self.labels_rows > 0
        require(enough, "reward.labels_rows", self.labels_rows, "must be > 0, or null for all rows of reward.labels")
        twice = self.path is not None and self.labels is not None
        require(not twice, "reward.labels", self.labels, "has no effect with reward.path, which is fitted")


@dataclass
class BeaverConfig(ScorerConfig):
    """PKU's beaver reward and cost models; a cost is negated because its config says that it is one."""

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "reward.path", self.path or "null", "must name a folder or a hub id")
        needs = "must contain {raw_prompt}: these models have no chat template"
        require("{raw_prompt}" in str(self.template), "reward.template", repr(self.template), needs)


@dataclass
class LengthConfig(RewardConfig):
    """Minus the length of the response."""

    unit: str = MISSING
    scale: float = MISSING

    def __post_init__(self) -> None:
        require_one_of("reward.unit", self.unit, ("tokens", "words"))
        require(0 < self.scale < math.inf, "reward.scale", self.scale, "must be a finite number > 0; shorter is better")


@dataclass
class PythonConfig(RewardConfig):
    """A function of prompt and response, by its name in a closed table."""

    function: str | None = MISSING
    negate: bool = MISSING

    def __post_init__(self) -> None:
        require(bool(self.function), "reward.function", self.function or "null", "must name a function")


@dataclass
class HttpConfig(RewardConfig):
    """An endpoint that scores batches."""

    url: str = MISSING
    api_key_env: str | None = MISSING
    version: str | None = MISSING
    batch_size: int = MISSING
    workers: int = MISSING
    timeout_s: float = MISSING
    deadline_s: float = MISSING
    backoff_s: float = MISSING
    negate: bool = MISSING

    def __post_init__(self) -> None:
        require_server("reward", self.url, self.api_key_env, name="url")
        require_patience("reward", self.workers, self.timeout_s, self.deadline_s, self.backoff_s)
        require(self.batch_size > 0, "reward.batch_size", self.batch_size, "must be > 0")


@dataclass
class JudgedConfig(RewardConfig):
    """A judge as a scorer: its share of yes. Nobody is trained on one."""

    judge: str = MISSING
    """Name of a file in conf/judge/."""
    settings: JudgeConfig = MISSING
    """That judge's own keys."""


@dataclass
class JoinedConfig(RewardConfig):
    """Several scorers of one objective, joined."""

    join: str = MISSING
    members: dict[str, RewardConfig] = MISSING


REWARD_KINDS: dict[str, type[RewardConfig]] = {
    "implicit": ImplicitConfig,
    "gold": GoldConfig,
    "classifier": ClassifierConfig,
    "cost": CostConfig,
    "probe": ProbeConfig,
    "beaver": BeaverConfig,
    "length": LengthConfig,
    "python": PythonConfig,
    "http": HttpConfig,
}
"""reward.kind -> its keys."""

JUDGED_KINDS = {"judge": "local", "guard": "guard"}
"""Kinds of scorers that ask a judge -> the file in conf/judge/ that they begin with."""

_KEY = re.compile(r"\b(reward|judge)\.(?=[a-z_]+)")
Typed = TypeVar("Typed")
_TYPES = ((bool, "true or false"), (int, "a whole number"), (float, "a number"), (str, "text"))


def typed_reward(key: str, given: Mapping[str, Any]) -> RewardConfig:
    """The typed, checked form of one objective's reward.

    Args:
        key: what the settings stand under, e.g. `algorithm.rewards.safer`.
        given: `kind` and every key of that kind.

    Raises:
        ConfigError: for a key that the kind does not have, a value of another type, or one out of range.
    """
    kind = str(given.get("kind"))
    require_one_of(f"{key}.kind", kind, REWARD_KINDS)
    return typed_as(REWARD_KINDS[kind], key, given, shown=f"kind={kind}", others=REWARD_KINDS.values())


def typed_as(
    known: type[Typed], key: str, given: Mapping[str, Any], *, shown: str, others: Iterable[type[Any]] = ()
) -> Typed:
    """The typed, checked form of settings that stand under a name of the user's.

    Args:
        known: their type.
        key: what they stand under.
        given: their values.
        shown: the choice that makes them this type, for an error.
        others: types whose keys have no effect here.

    Raises:
        ConfigError: for a key that the type does not have, a value of another type, or one out of range.
    """
    typed = OmegaConf.structured(known)
    for name, value in given.items():
        _check_name(known, key, name, value, shown, others)
        try:
            OmegaConf.update(typed, name, value)
        except OmegaConfBaseException:
            raise ConfigError(f"{key}.{name}={value}: must be {_wanted(known, name)}") from None
    try:
        return cast(Typed, OmegaConf.to_object(typed))
    except (MissingMandatoryValue, ConfigError) as error:
        raise ConfigError(_KEY.sub(f"{key}.", str(error).splitlines()[0])) from None


def _check_name(kind: type[Any], key: str, name: str, value: object, shown: str, others: Iterable[type[Any]]) -> None:
    known = [item.name for item in fields(kind)]
    if name not in known:
        elsewhere = any(name == item.name for other in others for item in fields(other))
        why = f"has no effect with {shown}; " if elsewhere else ""
        raise ConfigError(f"{key}.{name}={value}: {why}{nearest(str(name), known)}")


def _wanted(kind: type[Any], name: str) -> str:
    annotation = str(next(item.type for item in fields(kind) if item.name == name))
    return next((words for kind_of, words in _TYPES if kind_of.__name__ in annotation), annotation)
