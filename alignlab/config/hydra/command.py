"""The command that makes a run again, from the settings that the run recorded."""

import copy
import functools
import re
import shlex
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import yaml
from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.errors import HydraException
from omegaconf import DictConfig, OmegaConf
from omegaconf.errors import OmegaConfBaseException

from alignlab.config.hydra.compose import choices_of, composing, config_groups, register, run_config
from alignlab.config.roots import config_root
from alignlab.config.schema import RunConfig
from alignlab.config.uses import leaves, why_unused
from alignlab.errors import ConfigError

NOT_SAID = ("paths", "force")
"""Where files lie and whether a run is forced is no part of what it was."""
_found: dict[str, str | None] = {}
"""Record and files to choose from, as text -> its command: a sweep's page is written again while its runs end."""
_BARE = re.compile(r"[A-Za-z_./][\w./-]*\Z")
_WORDS = {"true", "false", "null", "nan", "inf", "yes", "no", "on", "off"}


def commands_of(records: Sequence[Mapping[str, Any]]) -> list[str | None]:
    """A command a record of config.json; None where no command of this version composes to the same settings.

    Every command was composed and compared with its record. It says nothing that has no effect on the run.
    """
    register()
    with composing():
        finder = _Finder({group: choices_of(group) for group in config_groups()}, {})
        keys = [repr((record, finder.choices)) for record in records]
        for key, record in zip(keys, records, strict=True):
            if key not in _found:
                _found[key] = finder.command(record)
        return [_found[key] for key in keys]


@dataclass(frozen=True)
class _Finder:
    """Finds commands; what several records share is composed once."""

    choices: Mapping[str, Sequence[str]]
    """Group -> names of its files."""
    bases: dict[tuple[str, ...], tuple[DictConfig, dict[str, Any]]]
    """Overrides that choose files -> what they compose to, also as plain values."""

    def command(self, record: Mapping[str, Any]) -> str | None:
        """The command of one record, None where there is none."""
        try:
            chosen = tuple(_chosen(record, self.choices))
            if chosen not in self.bases:
                composed = compose("config", overrides=list(chosen))
                self.bases[chosen] = composed, _plain(composed)
            base, plain = self.bases[chosen]
            values = _values(plain, record)
            first = [value for value in values if "." not in value.split("=")[0]]
            if len(first) < len(values):  # some of the rest may follow what comes first, as dataset.seed follows seed
                values = [*first, *_values(_plain(_overridden(base, first)), record)]
            whole = run_config(_overridden(base, values))
            if _said(asdict(whole)) != _said(record):
                return None
            short = [value for value in values if why_unused(whole, value.lstrip("+").partition("=")[0]) is None]
            if _read(run_config(_overridden(base, short))) == _read(whole):
                values = short
        except (ConfigError, OmegaConfBaseException, HydraException, ValueError, TypeError, KeyError):
            return None
        return shlex.join(["python", "-m", "alignlab", *chosen, *values])


def _overridden(base: DictConfig, overrides: list[str]) -> DictConfig:
    made = copy.deepcopy(base)
    ConfigLoaderImpl._apply_overrides_to_config(OverridesParser.create().parse_overrides(overrides), made)
    return made


def _said(record: Mapping[str, Any]) -> dict[str, Any]:
    return dict(leaves({key: value for key, value in record.items() if key not in NOT_SAID}))


def _read(config: RunConfig) -> dict[str, Any]:
    """The settings that have an effect on the run."""
    return {key: value for key, value in _said(asdict(config)).items() if why_unused(config, key) is None}


def _chosen(record: Mapping[str, Any], choices: Mapping[str, Sequence[str]]) -> Iterator[str]:
    """`GROUP=CHOICE` for each group whose recorded values fit another file than the default better."""
    default_of = {
        key: value for entry in _file("config")["defaults"] if isinstance(entry, dict) for key, value in entry.items()
    }
    for group, names in choices.items():
        own = record.get(group)
        if not isinstance(own, Mapping) or group not in default_of:
            continue
        flat = dict(leaves(own))
        usual = default_of[group]
        best = min(names, key=lambda choice: (_misfit(group, choice, flat), choice != usual))
        if best != usual:
            yield f"{group}={best}"


@functools.cache
def _file(name: str) -> dict[str, Any]:
    return yaml.safe_load((config_root("conf") / f"{name}.yaml").read_text(encoding="utf-8")) or {}


def _misfit(group: str, choice: str, own: Mapping[str, Any]) -> tuple[bool, int, int]:
    """How badly a file fits: another kind or name, values that differ, and values that it leaves open."""
    flat = {key: value for key, value in leaves(_file(f"{group}/{choice}")) if key != "defaults"}
    flat = {key: value for key, value in flat.items() if not (isinstance(value, str) and "${" in value)}
    agreeing = sum(own.get(key) == value for key, value in flat.items() if key in own)
    other = any(key in flat and own.get(key) != flat[key] for key in ("kind", "name"))
    return other, len(flat) - agreeing, -agreeing


def _values(base: Mapping[str, Any], record: Mapping[str, Any]) -> list[str]:
    """`KEY=VALUE` for every value that differs."""
    before, after = _said(base), _said(record)
    differing = {key: value for key, value in after.items() if key not in before or before[key] != value}
    return [f"{'' if key in before else '+'}{key}={_written(value)}" for key, value in differing.items()]


def _plain(base: DictConfig) -> dict[str, Any]:
    """The settings as plain values, typed where the base alone is a config, as it is not without a model.path."""
    try:
        return asdict(run_config(base))
    except (ConfigError, OmegaConfBaseException):
        plain = OmegaConf.to_container(base, resolve=True)
        return {str(key): value for key, value in plain.items()} if isinstance(plain, dict) else {}


def _written(value: Any) -> str:
    """A value in Hydra's grammar."""
    if value is None:
        return "null"
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, list | tuple):
        return f"[{','.join(map(_written, value))}]"
    if isinstance(value, Mapping):
        return f"{{{','.join(f'{key}:{_written(one)}' for key, one in value.items())}}}"
    text = str(value)
    if _BARE.match(text) and text.lower() not in _WORDS:
        return text
    escaped = re.sub(r"(\\*)'", lambda found: found[1] * 2 + r"\'", text)
    return f"'{escaped}'"
