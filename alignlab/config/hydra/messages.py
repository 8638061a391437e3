"""Hydra's and OmegaConf's errors, said in one line: key=value, the rule, the nearest valid name."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hydra import compose
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import Override
from hydra.errors import CompactHydraException, HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignlab.config.hydra.compose import choices_of, config_groups
from alignlab.config.schema import VARIANTS
from alignlab.errors import ConfigError, nearest

_CONVERSION = re.compile(r"Value '(?P<value>[^\n]*?)' (?:of type '[^\n]*?' )?could not be converted to (?P<type>\w+)")
_FULL_KEY = re.compile(r"full_key: (?P<key>\S+)")
_MERGING = re.compile(r"Error merging override (?P<override>[^\n]*)\n(?P<reason>[^\n]*)")
_NO_LAUNCHER = re.compile(r"In 'hydra/launcher/(?P<name>\w+)': Could not load 'hydra/launcher/(?P<plugin>[a-z]+)")
_EXTRAS = {"submitit": "slurm", "joblib": "parallel", "ray": "ray"}
"""Launcher plugin -> the extra that installs it."""
_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}
_RULES = {
    "is not Optional": "must not be null",
    "is not a valid bool": "must be true or false",
    "to string": "must be text",
    "is not a ListConfig": "must be a list, e.g. [a,b]",
    "Cannot assign": "is a group of settings; set its keys",
    "Invalid type assigned": "is a group of settings; set its keys",
}


def explain(error: Exception, config_name: str, overrides: Sequence[str]) -> ConfigError:
    """The same error as a ConfigError of one line or two. Needs Hydra to be set up, for the names that exist.

    Args:
        error: of Hydra or OmegaConf.
        config_name: the main config or a preset of sweeps/.
        overrides: as typed.
    """
    chain = list(_causes(error))
    for cause in chain:  # our own checks arrive wrapped when a resolver or to_object raised them
        if isinstance(cause, ConfigError):
            return cause
    wrong = _wrong_config_name(config_name) or _wrong_override(config_name, overrides)
    if wrong:
        return ConfigError(wrong)
    text = "\n".join(str(cause) for cause in chain)
    conversion, full_key = _CONVERSION.search(text), _FULL_KEY.search(text)
    if conversion and full_key:
        wanted = _TYPES.get(conversion["type"], conversion["type"])
        return ConfigError(f"{full_key['key']}={conversion['value']}: must be {wanted}")
    merging = _MERGING.search(text)
    if merging:
        rule = next((rule for sign, rule in _RULES.items() if sign in merging["reason"]), merging["reason"])
        return ConfigError(f"{merging['override'].lstrip('+')}: {rule}")
    launcher = _NO_LAUNCHER.search(text)
    if launcher and launcher["plugin"] in _EXTRAS:
        extra = _EXTRAS[launcher["plugin"]]
        return ConfigError(f"hydra/launcher={launcher['name']}: is not installed; pip install 'alignlab[{extra}]'")
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    facts = [line for line in lines if not line.startswith(("full_key:", "object_type", "reference_type"))]
    where = f"{full_key['key']}: " if full_key and not merging else ""
    return ConfigError(where + "\n".join(dict.fromkeys(facts[:2])) or type(error).__name__)


def _causes(error: BaseException) -> Iterable[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _wrong_config_name(name: str) -> str | None:
    known = choices_of("")
    return None if name.removesuffix(".yaml") in known else f"--config-name {name}: {nearest(name, known)}"


def _wrong_override(config_name: str, overrides: Sequence[str]) -> str | None:
    """What is wrong with the first override whose group, choice or key does not exist."""
    groups = config_groups()
    parsed = []
    for text in overrides:
        try:
            override = OverridesParser.create().parse_overrides([text])[0]
        except CompactHydraException:
            return _not_an_override(text)
        wrong = _wrong_choice(override, groups) if override.key_or_group else _not_an_override(text)
        if wrong:
            return wrong
        parsed.append((text, override))
    chosen = [text for text, override in parsed if _selects(override, groups)]
    try:
        known = compose(config_name, overrides=chosen, return_hydra_config=True)
    except (HydraException, OmegaConfBaseException):  # the choice itself is broken, and the first error says how
        return None
    for text, override in parsed:
        key = override.key_or_group
        if override.is_delete() and not key.startswith("hydra"):
            return f"{text}: no setting can be left out; write {key}=VALUE"
        if key in groups or "/" in key or _OPEN_ENDED.fullmatch(key):
            continue
        if OmegaConf.select(known, key, default=_MISSING) is _MISSING:
            return _unknown_key(key, known)
    return None


def _selects(override: Override, groups: Sequence[str]) -> bool:
    return override.key_or_group in groups and not override.is_delete() and not override.is_sweep_override()


_MISSING = object()
_OPEN_ENDED = re.compile(
    r"(algorithm\.rewards|scorers)\.\w+(\.held_out)?(\.members\.\w+)?\.\w+|(algorithm\.adapters|target)\.\w+|hydra\.job\.env_set\..*"
)
"""Mappings whose names the user chooses."""


def _not_an_override(text: str) -> str:
    key, equals, _ = text.partition("=")
    if equals and not key:
        return f"{text}: no key stands before the equals sign; write key=value"
    if not equals:
        return f"{text}: not an override; write {key}=VALUE"
    hint = "; write $HOME for ~" if "~" in text else ""
    return f"{text}: cannot be read; put quotes around values with spaces or symbols, 'key=\"a b\"'{hint}"


def _wrong_choice(override: Override, groups: Sequence[str]) -> str | None:
    """A choice that its group does not have; also for `hydra/launcher` and its like."""
    group = override.key_or_group
    if group.startswith("hydra/") or group in groups:
        choices = choices_of(group)
    else:
        return None
    for value in _values(override):
        if value not in choices:
            hint = " (launchers are extras: pip install 'alignlab[parallel,slurm,ray]')" if "launcher" in group else ""
            return f"{group}={value}: {nearest(value, choices)}{hint}"
    return None


def _values(override: Override) -> list[str]:
    if override.is_delete():
        return []
    if override.is_sweep_override():
        return [str(value) for value in override.sweep_string_iterator()]
    value = override.value()
    return [str(item) for item in value] if isinstance(value, list) else [str("" if value is None else value)]


def _unknown_key(key: str, known: DictConfig) -> str:
    """The wrong key with its nearest siblings, or where the same last name does exist."""
    parent, _, leaf = key.rpartition(".")
    group = key.partition(".")[0]
    if group == "w":
        return f"{key}: no such key; give all weights at once, e.g. 'w={{better:0.3,safer:0.7}}'"
    siblings = OmegaConf.select(known, parent) if parent else known
    if isinstance(siblings, DictConfig) and parent:
        choice = _choice_of(group, known)
        elsewhere = "other choices have it; " if _in_another_variant(group, key) else ""
        hint = elsewhere + nearest(leaf, map(str, siblings)) if len(siblings) else "it holds no keys of its own"
        return f"{key}: no such key{choice}; {hint}"
    known = OmegaConf.masked_copy(known, [name for name in known if name != "hydra"])
    same = [path for path in _paths(known) if path.rpartition(".")[2] == leaf]
    if same:
        return f"{key}: no such key; did you mean {' or '.join(same)}?"
    return f"{key}: no such key; {nearest(key, map(str, known))}"


def _choice_of(group: str, known: DictConfig) -> str:
    name = OmegaConf.select(known, f"{group}.name") or OmegaConf.select(known, f"{group}.kind")
    return f" with {group}={name}" if group in VARIANTS and name else ""


def _in_another_variant(group: str, key: str) -> bool:
    return any(key in _field_paths(variant, group) for variant in VARIANTS.get(group, {}).values())


def _field_paths(node: Any, prefix: str) -> Iterable[str]:
    for item in dataclasses.fields(node):
        yield f"{prefix}.{item.name}"
        if dataclasses.is_dataclass(item.type):
            yield from _field_paths(item.type, f"{prefix}.{item.name}")


def _paths(node: DictConfig, prefix: str = "") -> Iterable[str]:
    for name in node:
        yield f"{prefix}{name}"
        child = node._get_node(name)  # without resolving interpolations
        if isinstance(child, DictConfig) and not child._is_none():
            yield from _paths(child, f"{prefix}{name}.")
