"""Judges: who says whether a continuation corrects its course."""

import ipaddress
import math
import re
import socket
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from omegaconf import MISSING

from alignlab.config.names import WORDINGS
from alignlab.errors import ConfigError, require, require_fields, require_one_of

_ENV_NAME = re.compile(r"[A-Z][A-Z0-9_]{0,63}")


@dataclass
class JudgeConfig:
    """What every judge has."""

    kind: str = MISSING


@dataclass
class RulesJudgeConfig(JudgeConfig):
    """Phrases that mark a correction."""

    phrases: list[str] = MISSING

    def __post_init__(self) -> None:
        require_one_of("judge.kind", self.kind, ("rules",))
        require(bool(self.phrases), "judge.phrases", "[]", "must name at least one phrase")
        for phrase in self.phrases:
            require(any(map(str.isalnum, phrase)), "judge.phrases", phrase or "''", "must hold a word")


@dataclass
class AskingJudgeConfig(JudgeConfig):
    """A judge that is asked in words."""

    wordings: list[str] = MISSING

    def __post_init__(self) -> None:
        for name in self.wordings:
            require_one_of("judge.wordings", name, WORDINGS)
        require(len(set(self.wordings)) == len(self.wordings), "judge.wordings", self.wordings, "names one twice")


@dataclass
class OpenAIJudgeConfig(AskingJudgeConfig):
    """A model behind an OpenAI-compatible server."""

    base_url: str = MISSING
    model: str | None = MISSING
    api_key_env: str | None = MISSING
    temperature: float = MISSING
    max_tokens: int = MISSING
    structured: bool = MISSING
    workers: int = MISSING
    timeout_s: float = MISSING
    deadline_s: float = MISSING
    backoff_s: float = MISSING
    on_no_answer: str = MISSING
    dry_run: bool = MISSING
    max_usd: float | None = MISSING
    usd_per_million_input_tokens: float | None = MISSING
    usd_per_million_output_tokens: float | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("judge.kind", self.kind, ("openai",))
        require(bool(self.wordings), "judge.wordings", "[]", "must name at least one wording")
        require_server("judge", self.base_url, self.api_key_env)
        require(bool(self.model), "judge.model", "null", "must name the server's model")
        require(self.temperature >= 0, "judge.temperature", self.temperature, "must be >= 0")
        require(self.max_tokens > 0, "judge.max_tokens", self.max_tokens, "must be > 0")
        require_patience("judge", self.workers, self.timeout_s, self.deadline_s, self.backoff_s)
        require_one_of("judge.on_no_answer", self.on_no_answer, ("stop", "unscored"))
        self._require_prices()

    def _require_prices(self) -> None:
        for name in ("usd_per_million_input_tokens", "usd_per_million_output_tokens"):
            price = getattr(self, name)
            require(price is None or 0 <= price < math.inf, f"judge.{name}", price, "must be >= 0, or null if unknown")
            priced = price is not None or self.max_usd is None
            require(priced, "judge.max_usd", self.max_usd, f"needs judge.{name}, to know what a call costs")
        require(self.max_usd is None or self.max_usd > 0, "judge.max_usd", self.max_usd, "must be > 0, or null")


@dataclass
class LocalJudgeConfig(AskingJudgeConfig):
    """A causal language model in this process, by its probabilities of yes and no."""

    path: str | None = MISSING
    revision: str | None = MISSING
    dtype: str = MISSING
    prompt_template: str | None = MISSING
    ask: str = MISSING
    answer_prefix: str = MISSING
    yes_words: list[str] = MISSING
    no_words: list[str] = MISSING
    threshold: float = MISSING
    min_mass: float = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("judge.kind", self.kind, ("local",))
        require(bool(self.path), "judge.path", "null", "must name a folder with a model, or a model of the hub")
        require_one_of("judge.dtype", self.dtype, ("float32", "bfloat16", "float16"))
        require_one_of("judge.ask", self.ask, ("question", "conversation"))
        template = self.prompt_template
        good = template is None or "{raw_prompt}" in template
        require(good, "judge.prompt_template", template, "must hold {raw_prompt}, or be null for the chat template")
        require_fields("judge.prompt_template", template, ("raw_prompt",))
        for name in ("yes_words", "no_words"):
            words = getattr(self, name)
            require(bool(words) and all(words), f"judge.{name}", words, "must name at least one word")
        both = sorted({*self.yes_words} & {*self.no_words})
        require(not both, "judge.no_words", self.no_words, f"{both} cannot mean yes and no")
        require(0 < self.threshold < 1, "judge.threshold", self.threshold, "must be between 0 and 1")
        require(0 <= self.min_mass < 1, "judge.min_mass", self.min_mass, "must be in [0, 1)")
        require(self.batch_size > 0, "judge.batch_size", self.batch_size, "must be > 0")
        if self.ask == "conversation":
            require(template is None, "judge.prompt_template", template, "must be null with judge.ask=conversation")
            require(not self.wordings, "judge.wordings", self.wordings, "must be [] with judge.ask=conversation")
        else:
            require(bool(self.wordings), "judge.wordings", "[]", "must name at least one wording")


JUDGE_KINDS: dict[str, type[JudgeConfig]] = {
    "openai": OpenAIJudgeConfig,
    "local": LocalJudgeConfig,
    "rules": RulesJudgeConfig,
}
"""judge.kind -> its keys."""


def require_server(section: str, base_url: str, api_key_env: str | None, *, name: str = "base_url") -> None:
    """An address that a key may be sent to, and the name of the variable that holds the key.

    Args:
        section: what the keys stand under, for errors.
        base_url: of the server.
        api_key_env: variable that holds its key; None without one.
        name: what to call the server in a message.
    """
    require_name_of_key(f"{section}.api_key_env", api_key_env)
    key = f"{section}.{name}"
    try:
        parts = urlsplit(base_url)
        host, _ = parts.hostname or "", parts.port
    except ValueError as error:
        raise ConfigError(f"{key}: is no address: {error}") from None
    if "@" in parts.netloc or parts.query or parts.fragment:  # not shown, because a key may stand there
        raise ConfigError(f"{key}: must hold no user, password, query or #; name the key by {section}.api_key_env")
    require(parts.scheme in ("http", "https"), key, base_url, "must begin with http:// or https://")
    require(bool(host), key, base_url, "names no host")
    require(not serves_metadata(host), key, base_url, "is an address where clouds serve credentials")


def require_name_of_key(key: str, name: str | None) -> None:
    """The variable's name; a key typed here by mistake is not shown."""
    if name is not None and not _ENV_NAME.fullmatch(name):
        rule = "must be the NAME of an environment variable, in capitals, or null; what stands there is not shown"
        raise ConfigError(f"{key}: {rule}")


def require_patience(section: str, workers: int, timeout_s: float, deadline_s: float, backoff_s: float) -> None:
    """How a server is treated.

    Args:
        section: what the keys stand under, for errors.
        workers: calls in flight, >= 1.
        timeout_s: of one try, seconds.
        deadline_s: from a text's first try to its answer, seconds.
        backoff_s: before the second try, seconds.
    """
    require(1 <= workers <= 1000, f"{section}.workers", workers, "must be in 1..1000")
    require(timeout_s > 0, f"{section}.timeout_s", timeout_s, "must be > 0, in seconds")
    rule = f"must be at least {section}.timeout_s={timeout_s:g}"
    require(deadline_s >= timeout_s, f"{section}.deadline_s", deadline_s, rule)
    require(0 < backoff_s <= deadline_s, f"{section}.backoff_s", backoff_s, f"must be in (0, {section}.deadline_s]")


_METADATA_NAMES = ("metadata", "metadata.google.internal", "instance-data", "instance-data.ec2.internal")
_METADATA_ADDRESSES = {
    ipaddress.ip_address(text)
    for text in (
        "100.100.100.200",  # Alibaba
        "168.63.129.16",  # Azure
        "192.0.0.192",  # Oracle
        "fd00:ec2::254",  # AWS
        "fd20:ce::254",  # Google
    )
}


def serves_metadata(host: str) -> bool:
    """Whether a cloud hands out credentials at an address, or it is link-local; also `2852039166` and `0xA9FEA9FE`."""
    name = host.lower().strip("[]").partition("%")[0].rstrip(".")
    if name in _METADATA_NAMES:
        return True
    try:
        address = ipaddress.ip_address(name)
    except ValueError:
        try:
            address = ipaddress.ip_address(socket.inet_aton(name))  # numbers as the C library reads them
        except (OSError, ValueError):
            return False
    return any(each.is_link_local or each in _METADATA_ADDRESSES for each in _forms(address))


def _forms(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> list[Any]:
    """The address, and the IPv4 one that it carries: mapped, compatible, 6to4 or behind NAT64."""
    if isinstance(address, ipaddress.IPv4Address):
        return [address]
    carried = [address.ipv4_mapped, address.sixtofour]
    if address in ipaddress.ip_network("64:ff9b::/96") or address in ipaddress.ip_network("::/96"):
        carried.append(ipaddress.IPv4Address(int(address) & 0xFFFFFFFF))
    return [address, *filter(None, carried)]
