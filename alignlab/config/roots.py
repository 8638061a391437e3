"""Where the configuration files lie."""

import functools
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from omegaconf import OmegaConf

ROOTS = ("conf", "sweeps", "launchers")
_PACKAGE = Path(__file__).resolve().parent.parent


def config_root(name: str) -> Path:
    """`conf`, `sweeps` or `launchers`: inside the installed package, else beside the checkout's package."""
    inside = _PACKAGE / name
    return inside if inside.is_dir() else _PACKAGE.parent / name


@functools.cache
def conf_values(group: str, name: str) -> Mapping[str, Any]:
    """The values of a group's file in conf/, without its defaults list."""
    loaded = OmegaConf.to_container(OmegaConf.load(config_root("conf") / group / f"{name}.yaml"))
    return {key: value for key, value in cast(dict[str, Any], loaded).items() if key != "defaults"}
