"""Runs one job in its folder, unless that has been done."""

import ctypes
import functools
import gc
import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import run_folder
from alignlab.config.names import JOBS
from alignlab.config.schema import RunConfig
from alignlab.errors import ConfigError, nearest
from alignlab.runs.folder import claim, finished_result, recording
from alignlab.runs.progress import quiet_libraries, say

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's names for what malloc does, see its malloc.h."""


def load_job(name: str) -> ModuleType:
    """The module of an algorithm; imported late, because it imports torch."""
    if name not in JOBS:
        raise ConfigError(f"algorithm.name={name}: {nearest(name, JOBS)}")
    job = importlib.import_module(JOBS[name])
    _freeze_imports()
    _keep_freed_memory()
    return job


@functools.cache
def _freeze_imports() -> None:
    """Spares every training a third of a second's look through what the imports made, which stays anyway.

    Once a process, before there is a model: a model that is frozen while alive would never be collected.
    """
    gc.freeze()


@functools.cache
def _keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next one; to get it anew, page by page, takes up to a tenth of the time.

    Tensors beyond 32 MiB are still given back at once, as they are without this. Other C libraries keep their way.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_MMAP_THRESHOLD, 2**25)


def run_in_folder(config: RunConfig, folder: Path, *, wait: bool = False) -> dict[str, Any]:
    """The result of a run: read when the folder is finished, else computed and recorded there.

    Args:
        config: the run.
        folder: its folder.
        wait: wait for another process that is at work in it; else refuse.

    Raises:
        ConfigError: for bad input, or a folder in use.
        JobFailed: for any other failure, after result.json says so.
        OnlyPlanned: if the config asks only what the job would do.
    """
    quiet_libraries()
    with claim(folder, wait=wait):
        _refuse_another_run(config, folder)
        done = finished_result(folder)
        if done is not None and not config.force and not config.algorithm.only_collects:
            say(f"done before: {folder}")
            return done
        say(f"running: {folder}")
        job = load_job(config.algorithm.name)
        with recording(folder, config) as (run, outcome):
            try:
                job.run(config, run, outcome)
            except BaseException:
                # The next job of this process must not find a base model that was left with half an adapter in it.
                importlib.import_module("alignlab.prerequisites.reference").forget_models()
                raise
    result = finished_result(folder)
    assert result is not None
    return result


def _refuse_another_run(config: RunConfig, folder: Path) -> None:
    """Only a folder that hydra.run.dir names can hold another run; its result or checkpoints are not this one's."""
    if config.force or config.algorithm.only_collects or not (folder / "config.json").exists():
        return
    try:
        same = run_folder(load_run_config(folder / "config.json")) == run_folder(config)
    except (ConfigError, OSError, ValueError, KeyError, OmegaConfBaseException):
        same = False
    if not same:
        raise ConfigError(
            f"{folder}: holds another run; choose another hydra.run.dir, or give force=true to replace it"
        )
