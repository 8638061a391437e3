"""Rewards: where the score of an objective comes from, one type a kind."""

import ipaddress
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, fields
from typing import Any
from urllib.parse import urlsplit

from omegaconf import MISSING, OmegaConf
from omegaconf.errors import MissingMandatoryValue, OmegaConfBaseException

from alignlab.config.errors import ConfigError, nearest, require, require_one_of

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

    url: str | None = MISSING
    api_key_env: str | None = MISSING
    version: str | None = MISSING
    batch_size: int = MISSING
    concurrency: int = MISSING
    deadline: float = MISSING
    retries: int = MISSING
    negate: bool = MISSING

    def __post_init__(self) -> None:
        _check_url(self.url)
        name = self.api_key_env
        if name is not None and not re.fullmatch(r"[A-Z_][A-Z0-9_]*", name):  # it may be the key itself: not shown
            raise ConfigError("reward.api_key_env: must be the name of an environment variable, such as REWARD_API_KEY")
        for key in ("batch_size", "concurrency"):
            require(getattr(self, key) > 0, f"reward.{key}", getattr(self, key), "must be > 0")
        require(self.retries >= 0, "reward.retries", self.retries, "must be >= 0")
        require(0 < self.deadline < math.inf, "reward.deadline", self.deadline, "must be > 0 seconds")


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

METADATA_HOSTS = ("metadata.google.internal", "metadata.goog", "fd00:ec2::254", "100.100.100.200")
"""Addresses at which clouds hand out credentials, beside the link-local ones."""

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
        raise ConfigError(str(error).splitlines()[0].replace("reward.", f"{key}.", 1)) from None
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


def _check_url(url: str | None) -> None:
    """Only http(s), without a password in it, and not where a cloud hands out credentials."""
    require(bool(url), "reward.url", url or "null", "must be an http(s) address")
    parts = urlsplit(str(url))
    if parts.username is not None or parts.password is not None:  # the value is a secret: not shown
        raise ConfigError(
            "reward.url: must not hold a user name or password; api_key_env names an environment variable"
        )
    good = parts.scheme in ("http", "https") and bool(parts.hostname)
    require(good, "reward.url", url, "must begin with http:// or https:// and name a host")
    refused = is_metadata_host(str(parts.hostname))
    require(not refused, "reward.url", url, "link-local and metadata addresses are refused")


def is_metadata_host(host: str) -> bool:
    """Whether an address is link-local, or one at which a cloud hands out credentials."""
    if host.lower().rstrip(".") in METADATA_HOSTS:
        return True
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return False
    mapped = getattr(address, "ipv4_mapped", None)
    return address.is_link_local or str(address) in METADATA_HOSTS or bool(mapped and mapped.is_link_local)
