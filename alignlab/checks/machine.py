"""What this machine, its folders and its environment lack for a run. Imports no torch."""

import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from alignlab.config.plan import Plan
from alignlab.config.schema import OpenAIJudgeConfig, ServerGeneratorConfig
from alignlab.errors import ConfigError, require_key

_GPU_NODES = ("nvidia*", "nvhost*", "kfd", "dxg")
"""Device files of NVIDIA's, Jetson's, AMD's and WSL's drivers."""


def check_device(plan: Plan[Any]) -> None:
    """Refuse cuda on a Linux machine without any GPU driver; only for jobs that run on this machine.

    Raises:
        ConfigError: naming the group to choose from.
    """
    devices = Path("/dev")
    asked = plan.model.device == "cuda" and not plan.collects
    if asked and sys.platform == "linux" and not any(any(devices.glob(name)) for name in _GPU_NODES):
        raise ConfigError("hardware.device=cuda: this machine has no GPU; use hardware=cpu")


def check_launcher(target: str) -> None:
    """Refuse Slurm's launcher on a machine that cannot submit.

    Args:
        target: the launcher's class.

    Raises:
        ConfigError: naming launchers that run here.
    """
    if target.endswith("SlurmLauncher") and shutil.which("srun") is None:
        what = "this machine has no srun; submit from a login node"
        raise ConfigError(f"hydra/launcher=slurm: {what}, or use hydra/launcher=slurm_local or parallel")


def check_nodes(nodes: Sequence[int], launcher: str | None) -> None:
    """Refuse several nodes for what does not run in this process, one job after the other.

    Args:
        nodes: hardware.nodes of every job.
        launcher: the launcher's class of a sweep.

    Raises:
        ConfigError: naming the key.
    """
    most = max(nodes)
    if most == 1:
        return
    if len(set(nodes)) > 1:
        raise ConfigError(f"hardware.nodes={most}: must be the same in every run of a sweep, whose nodes stay together")
    if launcher is not None and not launcher.endswith("BasicLauncher"):
        what = "a sweep on several nodes runs one job after the other, in the command that each node starts"
        raise ConfigError(f"hardware.nodes={most}: {what}; leave hydra/launcher out, or use hardware.nodes=1")


def check_key(plan: Plan[Any]) -> None:
    """Refuse a judge or a generator whose key is not in the environment; only for jobs that run on this machine.

    Raises:
        ConfigError: naming the variable.
    """
    match plan.judge:
        case OpenAIJudgeConfig(dry_run=False, api_key_env=variable) if plan.judges:
            require_key("judge", variable)
    match plan.generator:
        case ServerGeneratorConfig(api_key_env=variable) if plan.algorithm.uses.data in ("requests", "prompts"):
            require_key("generator", variable)


def check_writable(folder: Path) -> None:
    """Refuses a run folder that cannot be made.

    Raises:
        ConfigError: naming the file or the read-only folder in the way.
    """
    there = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "is read-only" if there.is_dir() else "is a file, not a folder"
        raise ConfigError(f"{folder}: cannot be made; {there} {what} (see paths.runs and hydra.run.dir)")
