"""Runs one job in its folder, unless that has been done."""

import ctypes
import functools
import gc
import importlib
import json
import os
import sys
from dataclasses import asdict
from pathlib import Path
from types import ModuleType
from typing import Any

from omegaconf.errors import OmegaConfBaseException

from alignlab.config.fingerprints import quality_files
from alignlab.config.hydra.compose import load_run_config
from alignlab.config.identity import run_folder
from alignlab.config.plan import Plan
from alignlab.config.schema import VARIANTS
from alignlab.errors import ConfigError, JobFailed, nearest
from alignlab.io.atomic import write_json
from alignlab.io.hashes import sealed
from alignlab.runs.disk import full_line, is_full
from alignlab.runs.folder import CONFIG, claim, recording, remove_outputs, tidy
from alignlab.runs.progress import quiet_libraries, say
from alignlab.runs.result import RESULT, TRACKER_ID, Checked, RunResult, checked_result, finished_result
from alignlab.runs.sweep import sweep

MODELS = "alignlab.prerequisites.models"
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""glibc's names for what malloc does, see its malloc.h."""


def load_job(name: str) -> ModuleType:
    """The module of an algorithm; imported late, because it imports torch. The name is one of the closed table's."""
    if name not in VARIANTS["algorithm"]:
        raise ConfigError(f"algorithm.name={name}: {nearest(name, VARIANTS['algorithm'])}")
    job = importlib.import_module(f"alignlab.jobs.{name}")
    _freeze_imports()
    keep_freed_memory()
    return job


@functools.cache
def _freeze_imports() -> None:
    """Spares every training a third of a second's look through what the imports made, which stays anyway.

    Once a process, before there is a model: a model that is frozen while alive would never be collected.
    """
    gc.freeze()


@functools.cache
def keep_freed_memory() -> None:
    """Has glibc keep what a step frees for the next one; to get it anew, page by page, takes up to a tenth of the time.

    Tensors beyond 32 MiB are still given back at once, as they are without this. Other C libraries keep their way.
    """
    try:
        mallopt = ctypes.CDLL("libc.so.6").mallopt
    except (OSError, AttributeError):
        return
    mallopt(_M_TRIM_THRESHOLD, 2**31 - 1)
    mallopt(_M_MMAP_THRESHOLD, 2**25)


def make_run(plan: Plan[Any]) -> Path:
    """Run a prerequisite in its own folder unless that has been done, waiting for another process that is at it."""
    run_in_folder(plan, plan.folder, wait=True)
    return plan.folder


def run_and_score(plan: Plan[Any], folder: Path) -> tuple[RunResult, Path]:
    """The run's result and folder; of a policy that has scorers those of its evaluation, which comes after it."""
    result, evaluated = _run_and_score(plan, folder)
    if (folder / TRACKER_ID).exists():
        from alignlab.runs.publishing import publish_result

        publish_result(plan.recipe.tracker, folder, evaluated, result)
    return result, evaluated


def _run_and_score(plan: Plan[Any], folder: Path) -> tuple[RunResult, Path]:
    result = run_in_folder(plan, folder)
    if plan.algorithm.uses.after_run:
        sweep.after_run(folder, lambda: load_job(plan.algorithm.name).after_run(plan, folder))
    if not plan.scorers or not plan.algorithm.uses.trains or "adapter" not in result.artifacts:
        return result, folder
    evaluation = plan.evaluation(folder / result.artifacts["adapter"])
    evaluated = run_in_folder(evaluation, evaluation.folder, wait=True)
    if plan.previous is not None:
        importlib.import_module("alignlab.front.rounds").report_rounds(folder, _rounds(plan, folder))
    return evaluated, evaluation.folder


def _rounds(plan: Plan[Any], folder: Path) -> list[Path]:
    """Evaluations of the reference and of every round's policy, each made unless it is there."""
    runs = [(plan, folder)]
    while (earlier := runs[0][0].previous) is not None:
        runs.insert(0, (earlier, earlier.folder))
    return [make_run(plan.evaluation(None)), *(make_run(each.evaluation(where / "adapter")) for each, where in runs)]


def run_in_folder(plan: Plan[Any], folder: Path, *, wait: bool = False) -> RunResult:
    """The result of a run: read when the folder is finished, else computed and recorded there.

    Args:
        plan: the run.
        folder: its folder.
        wait: wait for another process that is at work in it; else refuse.

    Raises:
        ConfigError: for bad input, or a folder in use.
        JobFailed: for any other failure, after result.json says so.
        OnlyPlanned: if the config asks only what the job would do.
    """
    quiet_libraries()
    try:
        return _run_in_folder(plan, folder, wait=wait)
    except OSError as error:  # of the folder's own files; a job's are recorded
        if not is_full(error):
            raise
        raise JobFailed(f"{folder}: {full_line(folder, error)}") from error


def _run_in_folder(plan: Plan[Any], folder: Path, *, wait: bool) -> RunResult:
    with claim(folder, wait=wait):
        _refuse_another_run(plan, folder)
        if not plan.force and not plan.collects:
            checked = checked_result(folder)
            if checked.result is not None and not _lacks_scores(plan, checked.result):
                say(f"done before: {folder}")
                tidy(folder, plan)  # the process that finished it may have been killed before it could
                return checked.result
            _drop_damaged(plan, folder, checked)
        say(f"running: {folder}")
        with recording(folder, plan, make_run) as (run, outcome):
            try:
                job = load_job(plan.algorithm.name)
                if plan.previous is not None:
                    with run.stage("previous round"):
                        run.make_run(plan.previous)
                if plan.rows.made_by is not None:
                    with run.stage("pairs"):
                        run.make_run(plan.rows.made_by)
                job.run(plan, run, outcome)
            except BaseException:
                # The next job of this process must not find a base model that was left with half an adapter in it.
                if MODELS in sys.modules:
                    importlib.import_module(MODELS).forget_models()
                raise
    result = finished_result(folder)
    assert result is not None
    return result


def _drop_damaged(plan: Plan[Any], folder: Path, checked: Checked) -> None:
    """Say what is wrong with a finished run's files, and make room for them to be made again.

    What was trained is made again whole, since the rest was made with it; of other runs only the files at fault, which
    are set aside, because somebody may have changed them on purpose.
    """
    if checked.fault is None:
        return
    say(f"{folder}: {checked.fault}; the run is made again")
    if plan.algorithm.uses.trains:
        remove_outputs(folder, plan)
        return
    for name in checked.faults:
        if (folder / name).is_file():
            os.replace(folder / name, folder / f"{name}.damaged")


def _lacks_scores(plan: Plan[Any], done: RunResult) -> bool:
    """Whether a finished evaluation is of other scorers or files than are asked for now; its samples are there."""
    if plan.algorithm.uses.trains or plan.algorithm.uses.data == "prompts":
        return False
    if not plan.scorers:
        return False
    measured, asked = done.extra.get("quality") or {}, quality_files(plan.rows.settings)
    if any(measured.get(name) != value for name, value in asked.items() if plan.reads(f"dataset.{name}")):
        return True
    known = done.extra.get("scorers") or {}
    return known.keys() != plan.scorers.keys() or any(
        known[name].get("settings") != json.loads(json.dumps(asdict(source.settings)))
        or known[name].get("content", {}) != source.content()
        for name, source in plan.scorers.items()
    )


def _refuse_another_run(plan: Plan[Any], folder: Path) -> None:
    """Only a folder that hydra.run.dir names can hold another run; its result or checkpoints are not this one's."""
    config = folder / CONFIG
    if plan.force or plan.collects or not (config.exists() or (folder / RESULT).exists()):
        return
    try:
        same = Path(plan.runs / run_folder(load_run_config(config))) == plan.folder
    except (ConfigError, OSError, ValueError, KeyError, TypeError, AttributeError, OmegaConfBaseException) as error:
        of_other_keys = (
            "is of another version of alignlab" if isinstance(error, OmegaConfBaseException) else "is damaged"
        )
        what = "is gone" if isinstance(error, FileNotFoundError) else of_other_keys
        if folder.absolute() == plan.folder.absolute():  # by its name it holds this run
            say(f"{config}: {what}; written again")
            write_json(config, sealed(plan.record))
            return
        rule = "so nobody knows which run it holds; give force=true to run it again"
        raise ConfigError(f"{folder}: its {CONFIG} {what}, {rule}") from None
    if not same:
        raise ConfigError(
            f"{folder}: holds another run; choose another hydra.run.dir, or give force=true to replace it"
        )
