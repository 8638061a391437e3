"""Addresses and key variables that the command line, the installed conf/ or the user's own list must name."""

import functools
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import fields, is_dataclass
from pathlib import Path
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from omegaconf import OmegaConf

from alignlab.config.roots import config_root
from alignlab.errors import ConfigError

KEY_VARIABLES = (
    *("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "DEEPSEEK_API_KEY", "GROQ_API_KEY", "MISTRAL_API_KEY"),
    *("OPENROUTER_API_KEY", "TOGETHER_API_KEY", "VLLM_API_KEY"),
)
"""Variables whose value a configuration file may have sent to an endpoint."""
_ADDRESSES = ("base_url", "url")
_INSTALLED = ("judge/openai", "generator/server", "reward/http")


def endpoints_file() -> Path:
    """The user's list of endpoints: an address a line, # begins a comment."""
    home = os.environ.get("XDG_CONFIG_HOME") or Path.home() / ".config"
    return Path(home) / "alignlab" / "endpoints"


def check_endpoints(config: Any, overrides: Sequence[str]) -> list[str]:
    """Refuses an address that only a configuration file names, and a key that it may not send.

    Args:
        config: a RunConfig, or a part of one.
        overrides: the command line's.

    Returns:
        A line for each address that the user's list confirms.

    Raises:
        ConfigError: naming key and value, and how to confirm it.
    """
    used = dict(_endpoint_values(config, ""))
    if not used:
        return []
    typed = {name: {*_typed(overrides, name)} for name in (*_ADDRESSES, "api_key_env")}
    confirmed = []
    for key, value in used.items():
        name = key.rpartition(".")[2]
        if value in typed[name]:
            continue
        if name == "api_key_env":
            if value not in KEY_VARIABLES:
                allowed = ", ".join(KEY_VARIABLES)
                raise ConfigError(
                    f"{key}={value}: a file may name {allowed} only; give {key}={value} by hand to use it"
                )
        elif value not in _installed_addresses():
            if value not in _listed():
                how = f"give {key}={value} by hand, or add the address to {endpoints_file()}"
                raise ConfigError(f"{key}={value}: comes from a file and must be confirmed; {how}")
            confirmed.append(f"{key}={value}: confirmed in {endpoints_file()}")
    return confirmed


def _endpoint_values(node: Any, path: str) -> Iterator[tuple[str, str]]:
    """(key, value) of every address and key variable in a config."""
    if is_dataclass(node):
        children = {item.name: getattr(node, item.name) for item in fields(node)}
    elif isinstance(node, Mapping):
        children = {str(name): value for name, value in node.items()}
    else:
        return
    for name, value in children.items():
        if name in (*_ADDRESSES, "api_key_env") and isinstance(value, str):
            yield f"{path}{name}", value
        else:
            yield from _endpoint_values(value, f"{path}{name}.")


def _typed(overrides: Sequence[str], name: str) -> Iterator[str]:
    """The values that the command line gives a key of this name."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        for value in _values(override):
            if override.key_or_group.rpartition(".")[2] == name:
                yield str(value)
            yield from (found for key, found in _endpoint_values(value, ".") if key.rpartition(".")[2] == name)


def _values(override: Override) -> list[Any]:
    if override.is_delete():
        return []
    return list(override.sweep_string_iterator()) if override.is_sweep_override() else [override.value()]


@functools.cache
def _installed_addresses() -> frozenset[str]:
    loaded = [OmegaConf.load(config_root("conf") / f"{name}.yaml") for name in _INSTALLED]
    return frozenset(str(config[name]) for config in loaded for name in _ADDRESSES if name in config)


def _listed() -> list[str]:
    file = endpoints_file()
    lines = file.read_text(encoding="utf-8").splitlines() if file.is_file() else []
    return [line.partition(" #")[0].strip() for line in lines if not line.startswith("#")]
