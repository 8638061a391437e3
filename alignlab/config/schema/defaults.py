"""Fills up what the command line says of an objective's reward from the group `reward`, or from another kind's file."""

import functools
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from omegaconf import OmegaConf

from alignlab.config.roots import config_root
from alignlab.config.schema.reward import REWARD_KINDS, RewardConfig, typed_reward
from alignlab.errors import ConfigError, require_one_of


def complete_rewards(rewards: Mapping[str, Any], default: RewardConfig) -> dict[str, RewardConfig]:
    """Objective -> reward, every key known.

    `algorithm.rewards.safer.beta=0.1` takes the rest from the group `reward`; with another `kind` than the group's the
    rest comes from that kind's own file, conf/reward/KIND.yaml.

    Raises:
        ConfigError: naming objective and key.
    """
    return {name: _complete(f"algorithm.rewards.{name}", given, default) for name, given in rewards.items()}


def _complete(key: str, given: Any, default: RewardConfig) -> RewardConfig:
    if isinstance(given, RewardConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}={given}: holds keys of its own; set those, e.g. {key}.kind=length")
    kind = str(given.get("kind") or default.kind)
    require_one_of(f"{key}.kind", kind, REWARD_KINDS)
    rest = asdict(default) if kind == default.kind else dict(_defaults(kind))
    return typed_reward(key, {**rest, **given, "kind": kind})


@functools.cache
def _defaults(kind: str) -> dict[str, Any]:
    """The values in a kind's own file."""
    loaded = OmegaConf.to_container(OmegaConf.load(config_root("conf") / "reward" / f"{kind}.yaml"))
    assert isinstance(loaded, dict)
    return {str(key): value for key, value in loaded.items() if key != "defaults"}
