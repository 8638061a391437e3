"""Hydra's and OmegaConf's errors, said in one line: key=value, the rule, the nearest valid name."""

import dataclasses
import re
from collections.abc import Iterable, Sequence
from typing import Any

from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import CompactHydraException

from alignlab.config.compose import config_root
from alignlab.config.errors import ConfigError, nearest
from alignlab.config.schema import VARIANTS, RunConfig

_CONVERSION = re.compile(r"Value '(?P<value>[^\n]*?)' (?:of type '[^\n]*?' )?could not be converted to (?P<type>\w+)")
_FULL_KEY = re.compile(r"full_key: (?P<key>\S+)")
_TYPES = {"Integer": "a whole number", "Float": "a number", "Boolean": "true or false", "String": "text"}


def explain(error: Exception, overrides: Sequence[str]) -> ConfigError:
    """The same error as a ConfigError of one line or two."""
    if isinstance(error, ConfigError):
        return error
    chain = list(_causes(error))
    for cause in chain:  # our own checks arrive wrapped when a resolver or to_object raised them
        if isinstance(cause, ConfigError):
            return cause
    wrong_override = _unknown_name(overrides)
    if wrong_override:
        return ConfigError(wrong_override)
    text = "\n".join(str(cause) for cause in chain)
    conversion, full_key = _CONVERSION.search(text), _FULL_KEY.search(text)
    if conversion and full_key:
        wanted = _TYPES.get(conversion["type"], conversion["type"])
        return ConfigError(f"{full_key['key']}={conversion['value']}: must be {wanted}")
    lines = [line.strip() for line in text.splitlines() if line.strip() and not line.startswith("    object_type")]
    return ConfigError("\n".join(dict.fromkeys(lines[:3])))


def _causes(error: BaseException) -> Iterable[BaseException]:
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__ or seen.__context__


def _unknown_name(overrides: Sequence[str]) -> str | None:
    """The first override whose group, choice or key does not exist."""
    groups = {path.name for path in config_root("conf").iterdir() if path.is_dir()}
    for text in overrides:
        try:
            override = OverridesParser.create().parse_overrides([text])[0]
        except CompactHydraException:
            return f"{text}: not an override; write key=value, and quote values that hold spaces or symbols"
        key = override.key_or_group
        if key.startswith("hydra"):
            continue
        if key in groups:
            choices = {path.stem for path in (config_root("conf") / key).glob("*.yaml")}
            values = str(override.get_value_element_as_str()).split(",")
            wrong = next((value for value in values if value not in choices), None)
            if wrong is not None:
                return f"{key}={wrong}: {nearest(wrong, choices)}"
        elif key not in (known := set(_known_keys(groups, overrides))) and not _open_ended(key):
            return f"{key}: no such key; {_nearest_key(key, known)}"
    return None


def _open_ended(key: str) -> bool:
    """Mappings whose names the user chooses: rewards and objectives."""
    return bool(re.fullmatch(r"(\+*algorithm\.rewards|\+*dataset\.objectives)\.\w+\.\w+", key)) or key.startswith("w.")


def _known_keys(groups: set[str], overrides: Sequence[str]) -> Iterable[str]:
    for item in dataclasses.fields(RunConfig):
        yield item.name
        variants: Iterable[Any] = VARIANTS.get(item.name, {"": item.type}).values()
        for variant in variants:
            if dataclasses.is_dataclass(variant):
                yield from _field_paths(variant, item.name)


def _field_paths(node: Any, prefix: str) -> Iterable[str]:
    for item in dataclasses.fields(node):
        yield f"{prefix}.{item.name}"
        if dataclasses.is_dataclass(item.type):
            yield from _field_paths(item.type, f"{prefix}.{item.name}")


def _nearest_key(key: str, known: set[str]) -> str:
    """Siblings of the wrong key when its parent exists, else the closest of all."""
    parent = key.rpartition(".")[0]
    siblings = {name for name in known if name.rpartition(".")[0] == parent}
    return nearest(key, siblings or {name for name in known if "." not in name})
