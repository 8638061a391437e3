"""Finds conf/, registers schemas and resolvers with Hydra, and turns what Hydra composes into a checked RunConfig."""

import copy
import json
import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, fields, is_dataclass
from pathlib import Path
from typing import Any, cast

from hydra import compose
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.hydra import Hydra
from hydra._internal.utils import create_automatic_config_search_path
from hydra.core.config_search_path import ConfigSearchPath, SearchPathQuery
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.object_type import ObjectType
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.override_parser.types import ChoiceSweep, RangeSweep
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import BooleanNode, DictConfig, OmegaConf

from alignlab.config.hydra import loader
from alignlab.config.hydra.allowed import check_overrides
from alignlab.config.hydra.overrides import yielding_presets
from alignlab.config.identity import run_folder
from alignlab.config.roots import config_root
from alignlab.config.schema import VARIANTS, RunConfig
from alignlab.config.schema.dataset import dataset_variant
from alignlab.errors import ConfigError, holds_key, nearest
from alignlab.io.hashes import unsealed


class ExtraRoots(SearchPathPlugin):  # type: ignore[misc]  # hydra's plugin base is untyped
    """Lets `--config-name w_front` and `hydra/launcher=slurm` find sweeps/ and launchers/ from any folder."""

    def manipulate_search_path(self, search_path: ConfigSearchPath) -> None:
        """Appends both roots, after conf/."""
        for name in ("sweeps", "launchers"):
            search_path.append("alignlab", f"file://{config_root(name)}")


def register() -> None:
    """Registers schemas, resolvers and config roots; safe to call again, also in a launcher's worker."""
    store = ConfigStore.instance()
    store.store(group="schema", name="run", node=RunConfig)
    for group, variants in VARIANTS.items():
        for name, node in variants.items():
            store.store(group=f"schema/{group}", name=name, node=node)
    OmegaConf.register_new_resolver("alignlab.run_subdir", _run_subdir, replace=True)
    OmegaConf.register_new_resolver("alignlab.run_dir", _run_dir, replace=True)
    Plugins.instance().register(ExtraRoots)
    loader.install()


def run_config(composed: DictConfig) -> RunConfig:
    """The typed, range-checked form of a composed config.

    Raises:
        ConfigError: from the schema's checks, naming key, value and rule; for a key past the schema, which `++` adds;
            for a value that is a key to a service.
    """
    _require_known_keys(composed, "")
    # Each node is of its schema's type already; a merge with the schema would copy them all.
    values = {item.name: composed[item.name] for item in fields(RunConfig)}  # raises for what `~w` left out
    plain = {key: OmegaConf.to_object(value) if OmegaConf.is_config(value) else value for key, value in values.items()}
    config = RunConfig(**plain)
    for key, text in loader.texts_below(asdict(config)):
        if holds_key(text) and not key.endswith("revision"):
            raise ConfigError(f"{key}: holds a key to a service, which would be written down; see api_key_env")
    return config


def _require_known_keys(node: DictConfig, path: str) -> None:
    """Raises ConfigError for a key that is no field of its node's type."""
    kind = OmegaConf.get_type(node)
    known = [item.name for item in fields(kind)] if is_dataclass(kind) else [*map(str, node)]
    for key in map(str, node):
        if key == "hydra" and not path:
            continue
        if key not in known:
            group = path.removesuffix(".")
            choice = group in VARIANTS and (OmegaConf.select(node, "kind") or OmegaConf.select(node, "name"))
            why = f"has no effect on {group}={choice}" if choice else f"no such key; {nearest(key, known)}"
            raise ConfigError(f"{path}{key}: {why}")
        child = node._get_node(key)
        if isinstance(child, DictConfig) and not (child._is_missing() or child._is_none() or child._is_interpolation()):
            _require_known_keys(child, f"{path}{key}.")


def _run_subdir(*, _root_: DictConfig) -> str:
    return str(run_folder(run_config(_root_)))


def _run_dir(*, _root_: DictConfig) -> str:
    config = run_config(_root_)
    return str(Path(config.paths.runs) / run_folder(config))


@contextmanager
def composing(config_dir: str | None = None) -> Iterator[None]:
    """Hydra's compose API on conf/ and, as `--config-dir` does, on another folder; torn down again."""
    GlobalHydra.instance().clear()
    search_path = create_automatic_config_search_path(None, None, str(config_root("conf")))
    if config_dir is not None:
        search_path.prepend("command-line", f"file://{Path(config_dir).resolve()}", SearchPathQuery(provider="schema"))
    Hydra.create_main_hydra2(task_name="alignlab", config_search_path=search_path)
    try:
        yield
    finally:
        GlobalHydra.instance().clear()


@dataclass(frozen=True)
class CommandLine:
    """What a command line means."""

    config_name: str
    probe: DictConfig
    """The config without the swept values, with Hydra's node."""
    batch: list[list[str]] | None
    """Every job's overrides; None for a single run."""
    overrides: list[str]
    """The overrides for Hydra: as given, and what makes a preset's sweep give way to them."""

    @property
    def runs_here(self) -> bool:
        """Whether the jobs run on this machine, not on a cluster's."""
        launcher = str(self.probe.hydra.launcher._target_)
        return self.batch is None or launcher.endswith(("BasicLauncher", "JoblibLauncher", "LocalLauncher"))

    def jobs(self) -> Iterator[DictConfig]:
        """Every job, composed. Jobs that choose the same files share one composition, as a sweep over w does."""
        if self.batch is None:
            yield self.probe
            return
        groups = config_groups()
        composed: dict[tuple[str, ...], DictConfig] = {}
        for overrides in self.batch:
            parsed = OverridesParser.create().parse_overrides(overrides)
            choices = tuple(str(item.input_line) for item in parsed if _chooses(item.key_or_group, groups))
            if choices not in composed:
                composed[choices] = compose(self.config_name, overrides=list(choices), return_hydra_config=True)
            job = copy.deepcopy(composed[choices])
            values = [item for item in parsed if not _chooses(item.key_or_group, groups)]
            ConfigLoaderImpl._apply_overrides_to_config(values, job)
            yield job


def config_groups() -> list[str]:
    """The groups of conf/ and of --config-dir."""
    return [name for name in _listed("", ObjectType.GROUP) if name not in ("hydra", "schema")]


def choices_of(group: str) -> list[str]:
    """The choices of a group; of the group "" the presets."""
    return [name for name in _listed(group, ObjectType.CONFIG) if not name.startswith("_")]


def _listed(group: str, kind: ObjectType) -> list[str]:
    """What Hydra's loader would list; it copies all schemas at each call, which is half of the time of `--help`."""
    loader: Any = GlobalHydra.instance().config_loader()
    names: list[str] = loader.repository.get_group_options(group, kind)
    return names


def _chooses(key: str, groups: Sequence[str]) -> bool:
    return key in groups or "/" in key or "@" in key or key.startswith("hydra.searchpath")


def _quoted(override: str) -> str:
    """How to type one value that holds commas, where it can be a path or a text."""
    key, _, value = override.partition("=")
    if not any(sign in value for sign in "/. ") or value[:1] in "[{'\"":
        return ""
    try:
        [float(part) for part in value.split(",")]
    except ValueError:
        return f"; if it is one value, quote it: '{key}=\"{value}\"'"
    return ""


def read_command(config_name: str, overrides: Sequence[str], *, multirun: bool) -> CommandLine:
    """What a command line means.

    A sweeper other than Hydra's own chooses its points as it goes; of these only the fixed settings are known here.

    Args:
        config_name: the main config or a preset of sweeps/.
        overrides: as typed.
        multirun: whether -m was given.
    """
    check_overrides(OverridesParser.create().parse_overrides(list(overrides)))
    plain = [override for override in overrides if not is_sweep(override)]
    _check_choices(plain)
    _check_size(overrides)
    probe = compose(config_name, overrides=plain, return_hydra_config=True)
    _check_truth_values(probe, overrides)
    if OmegaConf.is_interpolation(probe.hydra.run, "dir") is False and not str(probe.hydra.run.dir).strip():
        raise ConfigError("hydra.run.dir=: must name a folder")
    if not (multirun or str(OmegaConf.select(probe, "hydra.mode")).endswith("MULTIRUN")):
        if len(plain) < len(overrides):
            several = next(override for override in overrides if is_sweep(override))
            raise ConfigError(f"{several}: several values make a sweep; add -m{_quoted(several)}")
        return CommandLine(config_name, probe, None, list(overrides))
    if not str(probe.hydra.sweeper._target_).endswith("BasicSweeper"):
        return CommandLine(config_name, probe, [plain], list(overrides))
    _check_paths(overrides)
    params = probe.hydra.sweeper.params or {}
    added = yielding_presets(params, overrides)
    preset = [] if added else [f"{key}={value}" for key, value in params.items()]
    _check_size([*preset, *overrides])
    batch = _expand([*preset, *overrides, *added])
    if not batch:
        raise ConfigError(f"{' '.join(overrides)}: the sweep holds no run")
    return CommandLine(config_name, probe, batch, [*overrides, *added])


def _check_paths(overrides: Sequence[str]) -> None:
    """Refuse a sweep over the two halves of a path that holds a comma.

    Raises:
        ConfigError: with the path as it must be typed.
    """
    for override in filter(is_sweep, overrides):
        value = override.partition("=")[2]
        if os.path.exists(value):
            raise ConfigError(f"{override}: is a path, not several values{_quoted(override)}")


def _check_choices(overrides: Sequence[str]) -> None:
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        if override.key_or_group in config_groups() and isinstance(override.value(), list):
            raise ConfigError(f"{override.input_line}: must be one choice; several make a sweep, -m GROUP=A,B")


MOST_RUNS = 10_000
"""Of one sweep."""


def _check_size(overrides: Sequence[str]) -> None:
    """Refuses a sweep that would take for ever to write out, let alone to run."""
    runs = 1
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        swept = override.value()
        if isinstance(swept, RangeSweep):
            start, stop, step = float(swept.start or 0), float(swept.stop or 0), float(swept.step)
            if not (math.isfinite(start + stop + step) and step):
                raise ConfigError(f"{override.input_line}: must be a range of finite numbers with a step that is not 0")
            runs *= max(1, math.ceil((stop - start) / step))
        elif isinstance(swept, ChoiceSweep):
            runs *= len(swept.list)
        if runs > MOST_RUNS:
            raise ConfigError(f"{override.input_line}: makes a sweep of {runs} runs, must be at most {MOST_RUNS}")


def _check_truth_values(probe: DictConfig, overrides: Sequence[str]) -> None:
    """OmegaConf takes any number for true."""
    for override in OverridesParser.create().parse_overrides(list(overrides)):
        parent, _, name = override.key_or_group.rpartition(".")
        node = OmegaConf.select(probe, parent) if parent else probe
        is_truth = isinstance(node, DictConfig) and isinstance(node._get_node(name, validate_access=False), BooleanNode)
        swept = override.value() if not override.is_delete() else None
        values = swept.list if isinstance(swept, ChoiceSweep) else [swept]
        if is_truth and any(isinstance(value, int | float) and not isinstance(value, bool) for value in values):
            raise ConfigError(f"{override.input_line}: must be true or false")


def _expand(overrides: Sequence[str]) -> list[list[str]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    loader = GlobalHydra.instance().config_loader()  # `model=glob(*)` asks it for names
    parsed = OverridesParser.create(config_loader=loader).parse_overrides(list(overrides))
    batches: list[list[list[str]]] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return batches[0]


def is_sweep(override: str) -> bool:
    """Whether an override names several values."""
    parsed: Any = OverridesParser.create().parse_overrides([override])[0]
    return bool(parsed.is_sweep_override())


def load_run_config(path: Path) -> RunConfig:
    """A run's config from the config.json in its folder.

    Raises:
        ValueError: if the file is damaged.
    """
    plain = unsealed(json.loads(path.read_text()))
    kinds = {
        "model": "pretrained" if plain["model"]["kind"] == "hf" else "from_scratch",
        "dataset": dataset_variant(plain["dataset"]["kind"]),
        "algorithm": plain["algorithm"]["name"],
        "reward": plain["reward"]["kind"],
        "generator": plain["generator"]["kind"],
        "judge": plain["judge"]["kind"],
    }
    typed = OmegaConf.create({group: OmegaConf.structured(VARIANTS[group][kind]) for group, kind in kinds.items()})
    return cast(RunConfig, OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), typed, plain)))
