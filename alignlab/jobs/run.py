"""Runs one job in its folder, unless that has been done."""

import importlib
from pathlib import Path
from types import ModuleType
from typing import Any

from alignlab.config.errors import ConfigError, nearest
from alignlab.config.names import JOBS
from alignlab.config.schema import RunConfig
from alignlab.runs.folder import claim, finished_result, recording
from alignlab.runs.progress import quiet_libraries, say


def load_job(name: str) -> ModuleType:
    """The module of an algorithm; imported late, because it imports torch."""
    if name not in JOBS:
        raise ConfigError(f"algorithm.name={name}: {nearest(name, JOBS)}")
    return importlib.import_module(JOBS[name])


def run_in_folder(config: RunConfig, folder: Path, *, wait: bool = False) -> dict[str, Any]:
    """The result of a run: read when the folder is finished, else computed and recorded there.

    Args:
        config: the run.
        folder: its folder.
        wait: wait for another process that is at work in it; else refuse.

    Raises:
        ConfigError: for bad input, or a folder in use.
        JobFailed: for any other failure, after result.json says so.
    """
    quiet_libraries()
    with claim(folder, wait=wait):
        done = finished_result(folder)
        if done is not None and not config.force and config.algorithm.name != "front":
            say(f"done before: {folder}")
            return done
        say(f"running: {folder}")
        job = load_job(config.algorithm.name)
        with recording(folder, config) as (run, outcome):
            job.run(config, run, outcome)
    result = finished_result(folder)
    assert result is not None
    return result
