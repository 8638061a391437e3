"""Fill up what the command line says of an objective's reward or scorer from the group `reward`, or a kind's file."""

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

from alignlab.config.names import HELD_OUT, JOINS
from alignlab.config.roots import conf_values, config_root
from alignlab.config.schema.judge import JUDGE_KINDS
from alignlab.config.schema.reward import (
    JUDGED_KINDS,
    REWARD_KINDS,
    JoinedConfig,
    JudgedConfig,
    RewardConfig,
    typed_as,
    typed_reward,
)
from alignlab.errors import ConfigError, nearest, require, require_one_of


def complete_rewards(rewards: Mapping[str, Any], default: RewardConfig) -> dict[str, RewardConfig]:
    """Objective -> reward, every key known.

    `algorithm.rewards.safer.beta=0.1` takes the rest from the group `reward`; with another `kind` than the group's the
    rest comes from that kind's own file, conf/reward/KIND.yaml.

    Raises:
        ConfigError: naming objective and key.
    """
    return {name: _complete(f"algorithm.rewards.{name}", given, default) for name, given in rewards.items()}


def complete_scorers(scorers: Mapping[str, Any]) -> dict[str, RewardConfig]:
    """Objective -> scorer, every key known; what is not given comes from its kind's own file.

    Kinds are those of conf/reward/, and `judge` and `guard`, whose keys are those of a judge in conf/judge/. A second
    scorer under `scorers.OBJECTIVE.held_out`, which nothing is trained on, stands as OBJECTIVE_held_out.

    Raises:
        ConfigError: naming objective and key.
    """
    found = {}
    for name, given in scorers.items():
        second = given.get(HELD_OUT) if isinstance(given, Mapping) else None
        own = {key: value for key, value in given.items() if key != HELD_OUT} if second is not None else given
        found[name] = _scorer(f"scorers.{name}", own)
        if second is not None:
            found[f"{name}_{HELD_OUT}"] = _scorer(f"scorers.{name}.{HELD_OUT}", second)
    return found


def _scorer(key: str, given: Any) -> RewardConfig:
    if isinstance(given, RewardConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}={given}: is a group; set its keys, e.g. {key}.kind=length")
    kind = given.get("kind")
    if "members" in given or "join" in given:
        return _joined(key, given)
    if kind in JUDGED_KINDS:
        return _judged(key, given, str(kind))
    require_one_of(f"{key}.kind", str(kind), [*REWARD_KINDS, *JUDGED_KINDS])
    return typed_reward(key, {**conf_values("reward", str(kind)), **given})


_JOINED = ("join", "members", "kind", "normalise")
"""The last two stand there where a run has recorded them."""


def _joined(key: str, given: Mapping[str, Any]) -> JoinedConfig:
    """Members are scorers with an own kind each; what they come to is one scorer."""
    for name in given:
        if name not in _JOINED:
            raise ConfigError(
                f"{key}.{name}={given[name]}: has no effect with {key}.join; {nearest(name, _JOINED[:2])}"
            )
    kind, join, members = given.get("kind", "joined"), str(given.get("join") or "mean"), given.get("members")
    require(kind == "joined", f"{key}.kind", kind, f"is not read with {key}.members, which have their own kinds")
    require_one_of(f"{key}.join", join, JOINS)
    if not isinstance(members, Mapping) or len(members) < 2:
        rule = f"must hold two scorers or more, e.g. {key}.members.first.kind=probe"
        raise ConfigError(f"{key}.members={members}: {rule}")
    found = {str(name): _scorer(f"{key}.members.{name}", one) for name, one in members.items()}
    for name, one in found.items():
        rule = "may leave an answer unscored or is joined itself; a member scores every answer"
        require(one.kind not in (*JUDGED_KINDS, "joined"), f"{key}.members.{name}.kind", one.kind, rule)
    return JoinedConfig(kind="joined", normalise=False, join=join, members=found)


_JUDGED = ("kind", "judge", "settings", "normalise")
"""A judge's keys stand beside these, and under `settings` where a run has recorded them."""


def _judged(key: str, given: Mapping[str, Any], kind: str) -> JudgedConfig:
    name = str(given.get("judge") or JUDGED_KINDS[kind])
    files = sorted(file.stem for file in (config_root("conf") / "judge").glob("*.yaml"))
    require_one_of(f"{key}.judge", name, files)
    rest = conf_values("judge", name)
    own = {**(given.get("settings") or {}), **{key: value for key, value in given.items() if key not in _JUDGED}}
    settings = typed_as(JUDGE_KINDS[rest["kind"]], key, {**rest, **own}, shown=f"judge={name}")
    return JudgedConfig(kind=kind, normalise=False, judge=name, settings=settings)


def _complete(key: str, given: Any, default: RewardConfig) -> RewardConfig:
    if isinstance(given, RewardConfig):
        return given
    if not isinstance(given, Mapping):
        raise ConfigError(f"{key}={given}: is a group of settings; set its keys, e.g. {key}.kind=length")
    kind = str(given.get("kind") or default.kind)
    require_one_of(f"{key}.kind", kind, REWARD_KINDS)
    rest = asdict(default) if kind == default.kind else conf_values("reward", kind)
    return typed_reward(key, {**rest, **given, "kind": kind})
