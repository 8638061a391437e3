"""What can be wrong with the rewards of a run and can be seen without loading a model. Imports no torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignlab.config.identity import Objectives, reward_of, rewarded
from alignlab.config.programs import programs
from alignlab.config.schema import (
    AuditConfig,
    BeaverConfig,
    ClassifierConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    ModpoConfig,
    PreferenceConfig,
    PythonConfig,
    RewardModelConfig,
    RunConfig,
)
from alignlab.errors import ConfigError, nearest, require_key, require_one_of
from alignlab.models.cards import read_classifier_card
from alignlab.models.paths import check_folder
from alignlab.models.saved_adapter import adapter_settings, checked_adapter

BEAVER_ARCHITECTURES = ("LlamaModelForScore", "LlamaForScore")
SCORE_TYPES = ("reward", "cost")


def check_rewards(config: RunConfig, objectives: Objectives) -> None:
    """Raises ConfigError for the first reward that cannot work, naming objective and key."""
    algorithm, adapter = config.algorithm, getattr(config.model, "adapter", None)
    if isinstance(algorithm, RewardModelConfig) and algorithm.kind == "classifier" and adapter:
        raise ConfigError(f"model.adapter={adapter}: not with algorithm.kind=classifier; merge it into a model first")
    for name in getattr(config.algorithm, "rewards", {}):
        if name not in objectives.weights:
            raise ConfigError(f"algorithm.rewards.{name}: no such objective; {nearest(name, objectives.weights)}")
        if name == objectives.trained and isinstance(config.algorithm, ModpoConfig):
            raise ConfigError(f"algorithm.rewards.{name}: is trained on its pairs, so a reward for it has no effect")
    for name in rewarded(config):
        check = _CHECKS.get(type(reward_of(config, name)))
        if check is not None:
            check(config, name, f"algorithm.rewards.{name}")


def _check_implicit(config: RunConfig, name: str, key: str) -> None:
    reward = reward_of(config, name)
    assert isinstance(reward, ImplicitConfig)
    if reward.adapter is None:
        return _check_trainable(config, name, key, "kind=implicit")
    template = config.model.prompt_template
    checked_adapter(f"{key}.adapter", Path(reward.adapter), template=template, beta=reward.beta, needs_beta=True)
    return None


def _check_trainable(config: RunConfig, name: str, key: str, kind: str) -> None:
    """A reward that no one names is trained on the objective's own pairs, so it needs some."""
    if config.dataset.objectives[name].label is None:
        raise ConfigError(
            f"{key}: dataset={config.dataset.name} has no labels of {name}, so no reward of {kind} can be trained for "
            f"it; choose another kind, e.g. {key}.kind=length"
        )
    if not isinstance(config.algorithm, PreferenceConfig | AuditConfig):
        raise ConfigError(f"{key}: must name a reward; algorithm={config.algorithm.name} makes none")


def _check_gold(config: RunConfig, name: str, key: str) -> None:
    if config.dataset.objectives[name].gold is None:
        raise ConfigError(f"{key}.kind=gold: dataset={config.dataset.name} has no gold rewards")


def _check_classifier(config: RunConfig, name: str, key: str) -> None:
    reward = reward_of(config, name)
    assert isinstance(reward, ClassifierConfig)
    if reward.path is None:
        return _check_trainable(config, name, key, "kind=classifier")
    folder = Path(reward.path)
    if not (folder / "adapter_config.json").is_file():
        check_folder(f"{key}.path", reward.path, "config.json")
        return _check_model_config(f"{key}.path={folder}", _json(folder / "config.json"))
    adapter_settings(f"{key}.path", folder)
    card = read_classifier_card(folder)
    if card is not None and reward.template is not None and reward.template != card.template:
        raise ConfigError(f"{key}.template={reward.template!r}: the classifier was trained with {card.template!r}")
    return None


def _check_model_config(what: str, found: dict[str, Any]) -> None:
    """What a whole model's config.json says; nothing is known of one on the hub."""
    if not found:
        return
    if found.get("score_type") is not None:
        raise ConfigError(f"{what}: is a beaver model; give kind=beaver")
    if not any("SequenceClassification" in name for name in found.get("architectures") or ()):
        raise ConfigError(f"{what}: is no sequence classifier (architectures={found.get('architectures')})")
    labels = found.get("num_labels") or len(found.get("id2label") or (0, 1))
    if labels != 1:
        raise ConfigError(f"{what}: has {labels} labels, a reward needs a classifier with one")


def _check_beaver(config: RunConfig, name: str, key: str) -> None:
    reward = reward_of(config, name)
    assert isinstance(reward, BeaverConfig)
    check_folder(f"{key}.path", str(reward.path), "config.json")
    found = _json(Path(str(reward.path)) / "config.json")
    if found:
        check_beaver_config(f"{key}.path={reward.path}", found)


def check_beaver_config(what: str, found: dict[str, Any]) -> None:
    """Refuses a config.json that is no safe-rlhf score model's, or no reward's or cost's.

    Raises:
        ConfigError: naming the field.
    """
    names = found.get("architectures") or []
    if not any(name in BEAVER_ARCHITECTURES for name in names):
        needed = " or ".join(BEAVER_ARCHITECTURES)
        raise ConfigError(f"{what}: is no beaver model: architectures={names}, must hold {needed}")
    if found.get("score_type") not in SCORE_TYPES:
        raise ConfigError(f"{what}: score_type={found.get('score_type')} in its config.json: must be reward or cost")
    if found.get("score_dim", 1) != 1:
        raise ConfigError(f"{what}: score_dim={found['score_dim']} in its config.json: must be 1")


def _check_python(config: RunConfig, name: str, key: str) -> None:
    reward = reward_of(config, name)
    assert isinstance(reward, PythonConfig)
    require_one_of(f"{key}.function", str(reward.function), programs())


def _check_http(config: RunConfig, name: str, key: str) -> None:
    reward = reward_of(config, name)
    assert isinstance(reward, HttpConfig)
    require_key(key, reward.api_key_env)


def _json(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


_CHECKS: dict[type, Callable[[RunConfig, str, str], None]] = {
    ImplicitConfig: _check_implicit,
    GoldConfig: _check_gold,
    ClassifierConfig: _check_classifier,
    BeaverConfig: _check_beaver,
    PythonConfig: _check_python,
    HttpConfig: _check_http,
}
