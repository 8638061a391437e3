"""What can be wrong with the rewards of a run and can be seen without loading a model. Imports no torch."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignlab.config.names import PROBE_PROMPTS
from alignlab.config.objectives import HEAVIEST
from alignlab.config.parts import RewardSource, RowSource
from alignlab.config.plan import Plan
from alignlab.config.programs import programs
from alignlab.config.schema import (
    BeaverConfig,
    ClassifierConfig,
    CostConfig,
    DatasetConfig,
    FileConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    JudgedConfig,
    LocalJudgeConfig,
    OpenAIJudgeConfig,
    ProbeConfig,
    PythonConfig,
)
from alignlab.config.uses import value_at
from alignlab.data.readers.pku import SAFER
from alignlab.data.sources import check_source, load
from alignlab.errors import ConfigError, nearest, require, require_key, require_one_of
from alignlab.models.cards import read_classifier_card, read_probe_card
from alignlab.models.paths import check_folder
from alignlab.models.saved_adapter import adapter_settings, checked_adapter

BEAVER_ARCHITECTURES = ("LlamaModelForScore", "LlamaForScore")
SCORE_TYPES = ("reward", "cost")
WHOLE_MODELS = ("classifier", "cost")
"""Kinds of rewards that are models of their own, trained from model.path."""


def check_rewards(plan: Plan[Any]) -> None:
    """Raise ConfigError for the first reward that cannot work, naming objective and key."""
    algorithm, objectives = plan.algorithm, plan.objectives
    labelled = [name for name, one in plan.rows.settings.objectives.items() if one.label is not None]
    kind = value_at(algorithm, "kind")
    if kind in WHOLE_MODELS:
        _check_start_of_classifier(f"algorithm.kind={kind}", plan)
    if kind == "cost":
        require_safety_labels("algorithm.kind=cost", plan.rows)
        _require_ranked_by_safety(f"algorithm.objective={objectives.trained}", objectives.trained, plan.rows.settings)
    for name in value_at(algorithm, "rewards") or ():
        if name not in objectives.weights:
            raise ConfigError(f"algorithm.rewards.{name}: no such objective; {nearest(name, objectives.weights)}")
        by_weight = value_at(algorithm, "objective") == HEAVIEST and len(labelled) > 1
        idle = name == objectives.trained and name not in plan.rewards  # with normalise=true its unit counts
        if idle and algorithm.uses.trains and not by_weight:
            raise ConfigError(f"algorithm.rewards.{name}: is trained on its pairs, so a reward for it has no effect")
    if plan.scorers and algorithm.uses.data != "prompts":
        _ = plan.local_generator  # refuses a server
    for name, one in plan.scorers.items():
        if one.objective not in objectives.weights:
            raise ConfigError(f"scorers.{name}: no such objective; {nearest(name, objectives.weights)}")
        _check_held_out(one, plan)
    every = (*plan.rewards.values(), *plan.scorers.values())
    for source in (*every, *(member for one in every for member in one.members.values())):
        if source.made_by is not None and source.settings.kind in WHOLE_MODELS:
            _check_start_of_classifier(f"{source.key}.kind={source.settings.kind}", source.made_by)
        check = _CHECKS.get(type(source.settings))
        if check is not None:
            check(source, source.settings)


def _check_start_of_classifier(asked_by: str, plan: Plan[Any]) -> None:
    """A classifier is trained from model.path itself, in its own type.

    Args:
        asked_by: `KEY=VALUE` of what trains one.
        plan: of the run that trains it.

    Raises:
        ConfigError: if an adapter is to be merged first, or the weights are to be in 4 bits.
    """
    adapter, quantization = (value_at(plan.model.settings, name) for name in ("adapter", "quantization"))
    if adapter:
        raise ConfigError(f"model.adapter={adapter}: not with {asked_by}; merge it into a model first")
    rule = f"must be null with {asked_by}: a classifier is trained in model.dtype"
    require(quantization is None, "model.quantization", quantization, rule)


def require_safety_labels(asked_by: str, source: RowSource) -> None:
    """Refuse data that never say whether a response is safe; a hub's rows are not here yet.

    Args:
        asked_by: `KEY=VALUE` of what needs the labels.
        source: of the rows.

    Raises:
        ConfigError: naming the kind or the file.
    """
    settings = source.settings
    rule = f"must be toy or pku_saferlhf with {asked_by}: their columns say of each response whether it is safe"
    require(settings.kind in ("toy", "pku_saferlhf"), "dataset.kind", settings.kind, rule)
    if isinstance(settings, FileConfig) and settings.path is not None:
        rows = load(settings, max_length=source.max_length).rows
        if not any(row.safe and None not in row.safe for row in rows):
            what = f"none of {len(rows):,} rows says of both responses whether they are safe"
            raise ConfigError(f"dataset.path={settings.path}: {what} (is_response_0_safe), as {asked_by} needs")


def _require_ranked_by_safety(asked_by: str, objective: str, settings: DatasetConfig) -> None:
    label = settings.objectives[objective].label
    if label != SAFER:
        raise ConfigError(f"{asked_by}: {objective} is ranked by {label}; a cost model learns the order by {SAFER}")


def _check_held_out(source: RewardSource, plan: Plan[Any]) -> None:
    """A held-out scorer says something new only where it is not what the policy was taught by."""
    if not source.held_out:
        return
    if plan.algorithm.name == "pairs":
        raise ConfigError(f"{source.key}: scores policies, and algorithm=pairs trains none; leave it out")
    first = plan.scorers.get(source.objective)
    if first is None or first.settings == source.settings:
        what = (
            f"is to differ from scorers.{source.objective}" if first else f"needs scorers.{source.objective} beside it"
        )
        raise ConfigError(f"{source.key}: {what}, which it is compared with")


def _check_implicit(source: RewardSource, settings: ImplicitConfig) -> None:
    if settings.adapter is None:
        return _check_named(source)
    key, template = f"{source.key}.adapter", source.prompt_template
    checked_adapter(key, Path(settings.adapter), template=template, beta=settings.beta, needs_beta=True)
    return None


def _check_named(source: RewardSource) -> None:
    """Only some algorithms train a reward that no one names."""
    if source.labelled:
        return
    why = f"{source.key}: dataset={source.dataset} has no labels of {source.objective}"
    if source.group == "algorithm.adapters":
        raise ConfigError(f"{why}, so no policy can be trained for it; name one, {source.key}=FOLDER")
    raise ConfigError(
        f"{why}, so no reward of kind={source.settings.kind} can be trained for it; choose another kind, e.g. "
        f"{source.own_key}.kind=length"
    )


def _check_gold(source: RewardSource, settings: GoldConfig) -> None:
    if source.gold is None:
        raise ConfigError(f"{source.key}.kind=gold: this dataset has no gold rewards")


def _check_classifier(source: RewardSource, settings: ClassifierConfig) -> None:
    key = source.key
    if settings.path is None:
        return _check_named(source)
    folder = Path(settings.path)
    if not (folder / "adapter_config.json").is_file():
        check_folder(f"{key}.path", settings.path, "config.json")
        return _check_model_config(f"{key}.path={folder}", _json(folder / "config.json"))
    adapter_settings(f"{key}.path", folder)
    card = read_classifier_card(folder)
    if card is not None and settings.template is not None and settings.template != card.template:
        raise ConfigError(f"{key}.template={settings.template!r}: the classifier was trained with {card.template!r}")
    rule = f"{folder} is a cost model of alignlab's, whose score is minus the cost already; leave it false"
    require(card is None or card.kind != "cost" or not settings.negate, f"{key}.negate", "true", rule)
    return None


def _check_cost(source: RewardSource, settings: CostConfig) -> None:
    if settings.path is not None:
        folder = Path(settings.path)
        card = read_classifier_card(folder) if folder.is_dir() else None
        if card is None or card.kind != "cost":
            hint = "name the folder `reward` of a run of algorithm=reward_model algorithm.kind=cost"
            raise ConfigError(f"{source.key}.path={folder}: holds no cost model; {hint}")
        if (folder / "adapter_config.json").is_file():
            adapter_settings(f"{source.key}.path", folder)
        return
    _check_named(source)
    if source.made_by is not None:
        require_safety_labels(f"{source.key}.kind=cost", source.made_by.rows)
        _require_ranked_by_safety(f"{source.key}.kind=cost", source.objective, source.made_by.rows.settings)


def _check_probe(source: RewardSource, settings: ProbeConfig) -> None:
    if settings.path is None and settings.labels is None:
        _check_named(source)
    if source.made_by is not None and source.made_by.rows.made_by is None:  # else they are not made yet
        rows, trained = source.made_by.rows, source.objective
        check_source(rows.settings, max_length=rows.max_length, trained=trained, prompts=PROBE_PROMPTS)
    if settings.path is None:
        return
    folder = Path(settings.path)
    if not (folder / "probe.safetensors").is_file() or read_probe_card(folder) is None:
        hint = "name the folder `reward` of a run of algorithm=reward_model algorithm.kind=probe"
        raise ConfigError(f"{source.key}.path={folder}: holds no probe; {hint}")


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


def _check_beaver(source: RewardSource, settings: BeaverConfig) -> None:
    check_folder(f"{source.key}.path", str(settings.path), "config.json")
    found = _json(Path(str(settings.path)) / "config.json")
    if found:
        check_beaver_config(f"{source.key}.path={settings.path}", found)


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


def _check_python(source: RewardSource, settings: PythonConfig) -> None:
    require_one_of(f"{source.key}.function", str(settings.function), programs())


def _check_http(source: RewardSource, settings: HttpConfig) -> None:
    require_key(source.key, settings.api_key_env)


def _check_judged(source: RewardSource, settings: JudgedConfig) -> None:
    match settings.settings:
        case LocalJudgeConfig(path=path):
            check_folder(f"{source.key}.path", str(path), "config.json")
        case OpenAIJudgeConfig(api_key_env=variable):
            require_key(source.key, variable)


def _json(file: Path) -> dict[str, Any]:
    """A JSON object, or an empty one where there is no such file."""
    if not file.is_file():
        return {}
    try:
        found = json.loads(file.read_text(encoding="utf-8"))
    except ValueError as error:
        raise ConfigError(f"{file}: not JSON: {error}") from None
    return found if isinstance(found, dict) else {}


_CHECKS: dict[type, Callable[[RewardSource, Any], None]] = {
    ImplicitConfig: _check_implicit,
    GoldConfig: _check_gold,
    ClassifierConfig: _check_classifier,
    CostConfig: _check_cost,
    ProbeConfig: _check_probe,
    BeaverConfig: _check_beaver,
    PythonConfig: _check_python,
    HttpConfig: _check_http,
    JudgedConfig: _check_judged,
}
