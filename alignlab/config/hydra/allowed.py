"""The closed list: what of Hydra's own node may be set, by a file and by the command line. All else is refused."""

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from hydra.core.override_parser.types import Override

from alignlab.config.hydra.files import PLAIN_INTERPOLATION, has_resolver
from alignlab.errors import ConfigError, holds_key, nearest

Rule = tuple[Callable[[Any], bool], str]
"""(whether a value is allowed, what must hold)."""

_PART = re.compile(r"(?!\.+(?:/|$))[\w.+=,@-]{1,100}")
_IN_FOLDERS = ("w", "seed", "algorithm.name", "model.name", "dataset.name", "hydra.job.num")
"""Settings that a run folder's name may hold: they are checked as names or numbers."""
_WORD = re.compile(r"[\w.,:|&+-]{1,100}")
"""A launcher writes these into a batch script, so no blank, quote or line end."""


def _is_below(text: Any) -> bool:
    """A path of plain parts, none of them `..`."""
    if not isinstance(text, str):
        return False
    plain = PLAIN_INTERPOLATION.sub(lambda found: "x" if found[1] in _IN_FOLDERS else "${", text)
    return all(_PART.fullmatch(part) for part in plain.split("/"))


def _is_below_runs(text: Any) -> bool:
    root, _, rest = str(text).partition("/")
    return root == "${paths.runs}" and (not rest or _is_below(rest))


def _is_number(value: Any) -> bool:
    return value is None or isinstance(value, bool | int | float)


_BELOW_RUNS: Rule = (_is_below_runs, "must be ${paths.runs}/FOLDER in a file; the command line may name any folder")
_BELOW: Rule = (_is_below, "must name a folder below the run root in a file; the command line may name any")
_NUMBER: Rule = (_is_number, "must be a number in a file")
_NAME: Rule = (
    lambda value: value is None or (isinstance(value, str | int) and bool(_WORD.fullmatch(str(value)))),
    "must be a plain name in a file",
)
_VERBOSITY: Rule = (lambda value: isinstance(value, bool), "must be true or false")

_FILE: dict[str, Rule] = {
    "mode": (lambda value: value in ("RUN", "MULTIRUN"), "must be RUN or MULTIRUN"),
    "verbose": _VERBOSITY,
    "run.dir": _BELOW_RUNS,
    "sweep.dir": _BELOW_RUNS,
    "sweep.subdir": _BELOW,
    "output_subdir": (lambda value: value is None or (_is_below(value) and "/" not in value), _BELOW[1]),
    "sweeper.max_batch_size": _NUMBER,
    **dict.fromkeys(
        [
            f"launcher.{name}"
            for name in (
                *("n_jobs", "timeout_min", "cpus_per_task", "gpus_per_node", "tasks_per_node", "nodes", "mem_gb"),
                *("cpus_per_gpu", "gpus_per_task", "array_parallelism", "max_num_timeout", "signal_delay_s"),
                *("ray.init.num_cpus", "ray.init.num_gpus", "ray.init.include_dashboard"),
                *("ray.remote.num_cpus", "ray.remote.num_gpus", "ray.remote.max_retries"),
            )
        ],
        _NUMBER,
    ),
    **dict.fromkeys(
        [
            f"launcher.{name}"
            for name in ("partition", "account", "qos", "constraint", "gres", "mem_per_gpu", "mem_per_cpu")
        ],
        _NAME,
    ),
}
"""Key below `hydra.` -> rule, for files outside the installed conf/."""

LAUNCHERS = (
    *("basic", "joblib", "parallel", "submitit_slurm", "submitit_local", "slurm", "slurm_local", "ray", "ray_local"),
)
"""Installed launchers that a file may choose; ray_aws, for one, would rent machines."""

_COMMAND_LINE = (
    *("hydra.mode", "hydra.verbose", "hydra.run.dir", "hydra.sweep.dir", "hydra.sweep.subdir", "hydra.output_subdir"),
    *("hydra.job.name", "hydra.job.env_set.NAME", "hydra.launcher.NAME", "hydra.sweeper.NAME"),
)
_OF_HYDRA = re.compile(
    r"hydra\.(?:mode|verbose|run\.dir|sweep\.(?:dir|subdir)|output_subdir|job\.name|job\.env_set\.\w+"
    r"|(?:launcher|sweeper)(?:\.[a-z]\w*)+)"
    r"|hydra/(?:launcher|sweeper)(?:/\w+)*"
)
_BASE = {
    *("hydra/config", "hydra/output/default", "hydra/help/default", "hydra/hydra_help/default", "hydra/env/default"),
    *("hydra/hydra_logging/none", "hydra/job_logging/none"),
}
"""What every composition holds of Hydra's own files."""


def check_choice(config_path: str, package: str) -> None:
    """Refuses a file that would land in Hydra's node, unless it is a launcher, a sweeper or what is always there.

    Args:
        config_path: of the file in its root, e.g. hydra/launcher/slurm.
        package: where its settings land, e.g. hydra.launcher.

    Raises:
        ConfigError: naming the file.
    """
    if not config_path.startswith("hydra/") and package.partition(".")[0] != "hydra":
        return
    group = config_path.removeprefix("hydra/").rpartition("/")[0]
    may = config_path in _BASE or config_path.startswith(("hydra/launcher/", "hydra/sweeper/"))
    if not may or package not in ("", "hydra" if config_path in _BASE else "", f"hydra.{group.replace('/', '.')}"):
        raise ConfigError(f"{config_path}: may not be chosen for hydra, {_WHY}; only a launcher and a sweeper may")


_WHY = "because choosing a configuration must not run code"
_FILES_MAY = "of hydra a file may set mode, verbose, run, sweep, and numbers and names of launcher and sweeper"


def check_launcher(name: str) -> None:
    """Refuses a launcher of an installed package that a file has chosen.

    Raises:
        ConfigError: with those that a file may choose.
    """
    if name not in LAUNCHERS:
        raise ConfigError(f"hydra/launcher={name}: a file may not choose it; {nearest(name, LAUNCHERS)}")


def check_settings(settings: Mapping[str, Any], source: str, runs: str) -> None:
    """Refuses what a file outside the installed conf/ may not set.

    Args:
        settings: the file's, where they land, interpolations unresolved.
        source: names the file.
        runs: root of the run folders without the file.

    Raises:
        ConfigError: naming the file and the key.
    """
    for name in ("hydra", "paths"):
        if name in settings and not isinstance(settings[name], Mapping):
            raise ConfigError(f"{source}: {name}: is a group of settings; set its keys")
    for key, value in _leaves(settings.get("hydra", {})):
        allowed, rule = _FILE.get(key, (None, ""))
        if allowed is None:
            raise ConfigError(f"{source}: hydra.{key}: a file may not set it, {_WHY}; {_FILES_MAY}")
        if not allowed(value):
            raise ConfigError(f"{source}: hydra.{key}={value}: {rule}")
    _check_sweep(settings.get("hydra", {}).get("sweeper"), source)
    for key, value in settings.get("paths", {}).items():
        below = value == runs or (str(value).startswith(f"{runs}/") and _is_below(str(value).removeprefix(f"{runs}/")))
        if key != "runs" or not below:
            rule = f"must lie below {runs} in a file" if key == "runs" else "a file may not set it"
            raise ConfigError(f"{source}: paths.{key}={value}: {rule}; set it on the command line")


def _leaves(node: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    if not isinstance(node, Mapping):
        yield prefix.rstrip("."), node
        return
    for name, value in node.items():
        if f"{prefix}{name}" != "sweeper.params":
            yield from _leaves(value, f"{prefix}{name}.")


_SWEPT = re.compile(r"(?!hydra\b|paths\b)\w+(?:[./]\w+)*")


def _check_sweep(sweeper: Any, source: str) -> None:
    """A preset's swept values become overrides, so their keys may be settings only."""
    params = sweeper.get("params") if isinstance(sweeper, Mapping) else None
    if params is not None and not isinstance(params, Mapping):
        raise ConfigError(f"{source}: hydra.sweeper.params: must be a mapping of settings to their values")
    for key, value in (params or {}).items():
        if not _SWEPT.fullmatch(str(key)):
            raise ConfigError(f"{source}: hydra.sweeper.params.{key}: a file may sweep over settings and groups only")
        if isinstance(value, Mapping | list):
            raise ConfigError(f"{source}: hydra.sweeper.params.{key}: must be text, e.g. 0.1,0.5")


def check_overrides(overrides: Sequence[Override]) -> None:
    """Refuses what a command line may not set, and what would write a key down.

    Raises:
        ConfigError: naming the key.
    """
    for override in overrides:
        key, text = override.key_or_group, str(override.input_line)
        package = str(override.package or "").partition(".")[0]
        is_hydra = re.match(r"hydra(?:[./]|$)", key) or package == "hydra"
        if is_hydra and (package or not _OF_HYDRA.fullmatch(key)):
            raise ConfigError(f"{key}: cannot be set, {_WHY}; {nearest(key, _COMMAND_LINE)}")
        if key == "hydra.verbose" and not _VERBOSITY[0](override.value()):
            raise ConfigError(f"{text}: {_VERBOSITY[1]}")
        if not override.is_delete() and override.value() == {}:
            raise ConfigError(f"{text}: an empty mapping changes nothing; what a file sets stays")
        if has_resolver(text):
            raise ConfigError(f"{text}: the shell fills in variables, {key}=$NAME; only ${{KEY}} is read here")
        if holds_key(text) and not key.endswith("revision"):
            raise ConfigError(f"{key}: holds a key to a service, which would be written down; see api_key_env")
