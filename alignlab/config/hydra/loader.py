"""Hydra's composition under the closed list of `allowed`: whatever composes, here or in a worker, is checked."""

import functools
from collections.abc import Iterator
from typing import Any

from hydra._internal import hydra as hydra_main
from hydra._internal.config_loader_impl import ConfigLoaderImpl
from hydra._internal.config_repository import CachingConfigRepository, IConfigRepository
from hydra._internal.sources_registry import SourcesRegistry
from hydra.core.default_element import ResultDefault
from hydra.core.override_parser.types import Override
from hydra.core.plugins import Plugins
from hydra.plugins.config_source import ConfigResult
from omegaconf import DictConfig, OmegaConf

from alignlab.config.hydra.allowed import check_choice, check_launcher, check_overrides, check_settings
from alignlab.config.hydra.files import PLAIN_INTERPOLATION, LimitedFileSource, is_installed
from alignlab.config.roots import config_root
from alignlab.errors import ConfigError

MOST_INTERPOLATIONS = 64
"""In files outside the installed conf/, of one composition."""
_OWN_TARGETS = ("hydra._internal.core_plugins.", "hydra_plugins.")


def install() -> None:
    """Puts this loader and its file reader in the place of Hydra's; safe to call again, also in a worker."""
    Plugins.instance()  # registers Hydra's own sources first
    SourcesRegistry.instance().types["file"] = LimitedFileSource
    hydra_main.ConfigLoaderImpl = ClosedListLoader


class ClosedListLoader(ConfigLoaderImpl):  # type: ignore[misc]  # hydra is untyped
    """Hydra's loader, which refuses what a file or the command line may not set before anything is built from it."""

    def __init__(self, *given: Any, **named: Any) -> None:
        super().__init__(*given, **named)
        self._checked: dict[tuple[str, ...], DictConfig] = {}
        """Overrides of a sweep's job -> its configuration, from Hydra's check of all jobs until the job is run."""

    def load_sweep_config(self, master_config: DictConfig, sweep_overrides: list[str]) -> DictConfig:
        """A job's configuration; Hydra asks twice for each, and composing takes nearly half a second."""
        job = tuple(sweep_overrides)
        config = self._checked.pop(job, None)
        if config is None:
            config = self._checked[job] = super().load_sweep_config(master_config, sweep_overrides)
        return config

    def _process_config_searchpath(
        self, config_name: str | None, parsed_overrides: list[Override], repo: CachingConfigRepository
    ) -> None:
        """No search path is ever added: `pkg://` in one imports."""
        check_overrides(parsed_overrides)
        loaded = repo.load_config(config_name) if config_name is not None else None
        plain = OmegaConf.to_container(loaded.config, resolve=False) if loaded else None
        node = plain.get("hydra") if isinstance(plain, dict) else None
        if isinstance(node, dict) and "searchpath" in node:
            raise ConfigError(f"{config_name}: hydra.searchpath: a file may not set it; --config-dir adds a folder")

    def _load_configuration_impl(self, config_name: str | None, overrides: list[str], *rest: Any, **more: Any) -> Any:
        self._outside: list[DictConfig] = []
        self._launcher_by_hand = any(line.startswith("hydra/launcher=") for line in overrides)
        composed = super()._load_configuration_impl(config_name, overrides, *rest, **more)
        _check_interpolations(self._outside, composed)
        for part in ("launcher", "sweeper"):
            target = str(OmegaConf.select(composed.hydra, f"{part}._target_"))
            if not target.startswith(_OWN_TARGETS):
                raise ConfigError(f"hydra.{part}._target_={target}: must be a Hydra plugin; choose hydra/{part}=NAME")
        self._outside = []
        return composed

    def _load_single_config(self, default: ResultDefault, repo: IConfigRepository) -> ConfigResult:
        loaded = super()._load_single_config(default, repo)
        installed, path = is_installed(loaded.path), str(default.config_path)
        package = default.package if default.package is not None else str(loaded.header["package"] or "")
        check_choice(path, package)
        if installed and path.startswith("hydra/launcher/") and not self._launcher_by_hand:
            check_launcher(path.rpartition("/")[2])
        if not installed:
            source = f"{loaded.path.removeprefix('file://')}/{path}.yaml"
            plain = OmegaConf.to_container(loaded.config, resolve=False)
            if not isinstance(plain, dict):
                raise ConfigError(f"{source}: must hold settings, key: value")
            check_settings({str(key): value for key, value in plain.items()}, source, _installed_runs())
            self._outside.append(loaded.config)
        return loaded


@functools.cache
def _installed_runs() -> str:
    """Root of the run folders, as the installed conf/ has it."""
    return str(OmegaConf.load(config_root("conf") / "config.yaml").paths.runs)


def _check_interpolations(files: list[DictConfig], composed: DictConfig) -> None:
    """Those of files may name plain values only, and none that is an interpolation of theirs: nothing multiplies."""
    texts = (pair for config in files for pair in texts_below(OmegaConf.to_container(config, resolve=False)))
    found = [(key, target) for key, text in texts for target in PLAIN_INTERPOLATION.findall(text)]
    if len(found) > MOST_INTERPOLATIONS:
        raise ConfigError(f"{found[0][0]}: more than {MOST_INTERPOLATIONS} interpolations in files")
    own = {key for key, _ in found}
    plain = OmegaConf.to_container(composed, resolve=False) if found else {}
    for key, target in found:
        value = functools.reduce(_child, target.split("."), plain)
        if value is _NOTHING or isinstance(value, dict | list) or target in own:
            raise ConfigError(f"{key}=${{{target}}}: must name a setting with a plain value")


_NOTHING = object()


def _child(node: Any, name: str) -> Any:
    return node.get(name, _NOTHING) if isinstance(node, dict) else _NOTHING


def texts_below(node: Any, path: str = "") -> Iterator[tuple[str, str]]:
    """Every text below a plain node, with its key."""
    if isinstance(node, dict):
        for name, value in node.items():
            yield from texts_below(value, f"{path}.{name}" if path else str(name))
    elif isinstance(node, list):
        for value in node:
            yield from texts_below(value, path)
    elif isinstance(node, str):
        yield path, node
