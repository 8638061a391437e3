"""Finds conf/, registers schemas and resolvers with Hydra, and turns what Hydra composes into a checked RunConfig."""

import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import fields
from pathlib import Path
from typing import Any

from hydra import compose, initialize_config_dir
from hydra.core.config_search_path import ConfigSearchPath
from hydra.core.config_store import ConfigStore
from hydra.core.global_hydra import GlobalHydra
from hydra.core.override_parser.overrides_parser import OverridesParser
from hydra.core.plugins import Plugins
from hydra.plugins.search_path_plugin import SearchPathPlugin
from omegaconf import DictConfig, OmegaConf

from alignlab.config.errors import ConfigError
from alignlab.config.identity import run_folder
from alignlab.config.schema import VARIANTS, RunConfig

_PACKAGE = Path(__file__).resolve().parent.parent


def config_root(name: str) -> Path:
    """`conf`, `sweeps` or `launchers`: inside the installed package, else beside the checkout's package."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


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


def run_config(composed: DictConfig) -> RunConfig:
    """The typed, range-checked form of a composed config.

    Raises:
        ConfigError: from the schema's checks, naming key, value and rule.
    """
    unknown = set(composed.algorithm) - {item.name for item in fields(OmegaConf.get_type(composed.algorithm))}
    if unknown:  # `++` adds keys past the schema
        raise ConfigError(f"algorithm.{min(unknown)}: has no effect on algorithm={composed.algorithm.name}")
    own = OmegaConf.masked_copy(composed, [key for key in composed if key != "hydra"])
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), own))
    assert isinstance(config, RunConfig)
    return config


def _run_subdir(*, _root_: DictConfig) -> str:
    return str(run_folder(run_config(_root_)))


def _run_dir(*, _root_: DictConfig) -> str:
    config = run_config(_root_)
    return str(Path(config.paths.runs) / run_folder(config))


@contextmanager
def composing() -> Iterator[None]:
    """Hydra's compose API, set up on conf/ and torn down again."""
    GlobalHydra.instance().clear()
    with initialize_config_dir(str(config_root("conf")), version_base="1.3"):
        yield


def compose_jobs(config_name: str, overrides: Sequence[str], *, multirun: bool) -> tuple[list[DictConfig], bool]:
    """Every job that a command line means, composed with Hydra's node, and whether it is a sweep.

    A sweeper other than Hydra's own chooses its points as it goes; then only the first settings can be checked.
    """
    plain = [override for override in overrides if not _is_sweep(override)]
    probe = compose(config_name, overrides=plain, return_hydra_config=True)
    if OmegaConf.select(probe, "hydra.callbacks"):
        raise ConfigError("hydra.callbacks: not supported, because choosing a configuration must not run code")
    if not (multirun or str(OmegaConf.select(probe, "hydra.mode")).endswith("MULTIRUN")):
        if len(plain) < len(overrides):
            swept = next(override for override in overrides if _is_sweep(override))
            raise ConfigError(f"{swept}: several values make a sweep; add -m")
        return [probe], False
    if not str(probe.hydra.sweeper._target_).endswith("BasicSweeper"):
        return [probe], True
    params = probe.hydra.sweeper.params or {}
    given = [f"{key}={value}" for key, value in params.items()] + list(overrides)
    return [compose(config_name, overrides=job, return_hydra_config=True) for job in _expand(given)], True


def _expand(overrides: Sequence[str]) -> list[list[str]]:
    from hydra._internal.core_plugins.basic_sweeper import BasicSweeper

    parsed = OverridesParser.create().parse_overrides(list(overrides))
    batches: list[list[list[str]]] = BasicSweeper.split_arguments(parsed, max_batch_size=None)
    return batches[0]


def _is_sweep(override: str) -> bool:
    parsed: Any = OverridesParser.create().parse_overrides([override])[0]
    return bool(parsed.is_sweep_override())


def load_run_config(path: Path) -> RunConfig:
    """A run's config from the config.json in its folder."""
    plain = json.loads(path.read_text())
    kinds = {
        "model": "pretrained" if plain["model"]["kind"] == "hf" else "from_scratch",
        "dataset": "toy" if plain["dataset"]["kind"] == "toy" else "file",
        "algorithm": plain["algorithm"]["name"],
    }
    typed = OmegaConf.create({group: OmegaConf.structured(VARIANTS[group][kind]) for group, kind in kinds.items()})
    config = OmegaConf.to_object(OmegaConf.merge(OmegaConf.structured(RunConfig), typed, plain))
    assert isinstance(config, RunConfig)
    return config
