"""Rewards: where the score of an objective comes from, one type a kind."""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from alignlab.config.schema.judge import require_patience, require_server
from alignlab.errors import ConfigError, nearest, require, require_one_of

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
        require(self.max_length > 1, "reward.max_length", self.max_length, "must be > 1 token")
        require_one_of("reward.dtype", self.dtype, DTYPES)


@dataclass
class ClassifierConfig(ScorerConfig):
    """Any sequence classifier with one label. path=null means: trained by a reward_model run."""

    negate: bool = MISSING


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


REWARD_KINDS: dict[str, type[RewardConfig]] = {
    "implicit": ImplicitConfig,
    "gold": GoldConfig,
    "classifier": ClassifierConfig,
    "beaver": BeaverConfig,
    "length": LengthConfig,
    "python": PythonConfig,
    "http": HttpConfig,
}
"""reward.kind -> its keys."""

_KEY = re.compile(r"\breward\.(?=[a-z_]+)")
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
    typed = OmegaConf.structured(REWARD_KINDS[kind])
    for name, value in given.items():
        _check_name(key, name, value, kind)
        try:
            OmegaConf.update(typed, name, value)
        except OmegaConfBaseException:
            raise ConfigError(f"{key}.{name}={value}: must be {_wanted(kind, name)}") from None
    try:
        reward = OmegaConf.to_object(typed)
    except (MissingMandatoryValue, ConfigError) as error:
        raise ConfigError(_KEY.sub(f"{key}.", str(error).splitlines()[0])) from None
    assert isinstance(reward, RewardConfig)
    return reward


def _check_name(key: str, name: str, value: object, kind: str) -> None:
    known = [item.name for item in fields(REWARD_KINDS[kind])]
    if name not in known:
        elsewhere = any(name == item.name for other in REWARD_KINDS.values() for item in fields(other))
        why = f"has no effect with kind={kind}; " if elsewhere else ""
        raise ConfigError(f"{key}.{name}={value}: {why}{nearest(str(name), known)}")


def _wanted(kind: str, name: str) -> str:
    annotation = str(next(item.type for item in fields(REWARD_KINDS[kind]) if item.name == name))
    return next((words for kind_of, words in _TYPES if kind_of.__name__ in annotation), annotation)
