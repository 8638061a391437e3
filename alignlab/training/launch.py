"""Train in this process, or in several through torchrun; the effective batch is the same either way.

A stage is one training. Its folder holds what the processes need: `stage.json` and the rows. Several nodes share it on
one file system; `several_nodes` is node 0's part of such a training, `follow` the others'.
"""

import os
import secrets
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import torch
from datasets import Dataset

from alignlab.config.recipe import TrainingRecipe
from alignlab.config.schema import HardwareConfig
from alignlab.io.atomic import write_json
from alignlab.models.base import Base, free_memory
from alignlab.runs.activity import Count, activity, open_in, told_in
from alignlab.runs.progress import progress, say
from alignlab.runs.tracking import tracking
from alignlab.training.conditioned import Condition, ConditionedTrainer
from alignlab.training.conflict import ConflictAverseTrainer, ConflictAversion
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import PreferenceTrainer, train_preference
from alignlab.training.several_nodes import Meeting, stage_on_nodes

STAGE, STAGE_FILE, ROWS = "stage", "stage.json", "rows"
ERROR = "error.txt"
LOOK_SECONDS = 1.0
"""Between two looks at how many steps the processes have done."""
PATIENCE_SECONDS = 30.0
"""Between telling processes to end and killing them."""


def train_on_processes(
    recipe: TrainingRecipe,
    base: Base,
    rows: Dataset,
    loss: PreferenceLoss,
    folder: Path,
    condition: Condition | None = None,
    conflict: ConflictAversion | None = None,
) -> Path:
    """Train an adapter into `folder/adapter` and return that folder.

    Args:
        recipe: how it is trained; recipe.hardware says on how many processes of how many nodes.
        base: the base model; other processes load it again from its path.
        rows: tokenised pairs with the reference's log-probabilities, and tilts in columns of their own.
        loss: what is minimised.
        folder: the run folder.
        condition: how the adapter depends on w, if it does.
        conflict: how the gradients of several objectives are combined, if they are; in this process only.

    Raises:
        RuntimeError: if a process fails; names the log.
    """
    if conflict is not None:
        recipe = recipe.one_process
    if recipe.hardware.world_size == 1:
        return train_here(recipe, base, rows, loss, folder, condition, conflict)
    told = {"loss": asdict(loss), "condition": None if condition is None else asdict(condition)}
    run_stage("preference", told, recipe, base, rows, folder)
    return folder / "adapter"


def train_here(
    recipe: TrainingRecipe,
    base: Base,
    rows: Dataset,
    loss: PreferenceLoss,
    folder: Path,
    condition: Condition | None,
    conflict: ConflictAversion | None = None,
) -> Path:
    """Train an adapter in this process, which may be one of several, and return its folder.

    Args:
        recipe: how it is trained.
        base: the base model.
        rows: tokenised pairs with the reference's log-probabilities, and tilts in columns of their own.
        loss: what is minimised.
        folder: the run folder.
        condition: how the adapter depends on w, if it does.
        conflict: how the gradients of several objectives are combined, if they are.
    """
    make_trainer: Callable[..., PreferenceTrainer] = PreferenceTrainer
    if condition is not None:
        make_trainer = partial(ConditionedTrainer, condition=condition)
    elif conflict is not None:
        make_trainer = partial(ConflictAverseTrainer, conflict=conflict)
    with tracking(recipe.tracker, folder) as tracker:
        return train_preference(
            base,
            rows,
            loss,
            trainer=recipe.trainer,
            peft=recipe.peft if condition is None else condition.peft(recipe.peft),
            hardware=recipe.hardware,
            seed=recipe.seed,
            folder=folder,
            start=None if recipe.start is None else Path(recipe.start),
            callbacks=[tracker],
            make_trainer=make_trainer,
        )


def run_stage(kind: str, told: dict[str, Any], recipe: TrainingRecipe, base: Base, rows: Dataset, folder: Path) -> None:
    """Train on all processes of all nodes; they leave their results in the run folder.

    Args:
        kind: what is trained; see worker.KINDS.
        told: what it needs beside recipe, base and rows, as JSON has it.
        recipe: how it is trained.
        base: the base model, which leaves the device meanwhile.
        rows: what is trained on.
        folder: the run folder.

    Raises:
        RuntimeError: if a process fails; names the log.
    """
    hardware, stage = recipe.hardware, folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    rows.save_to_disk(str(stage / ROWS))
    paths = [Path(path).absolute() for path in (base.path, recipe.start) if path is not None]
    reads = [str(path) for path in paths if path.exists()]  # a hub id is no folder
    told = {**told, "kind": kind, "base": base.path, "recipe": recipe.to_json(), "reads": reads}
    write_json(stage / STAGE_FILE, told | {"token": (token := secrets.token_hex(8))})
    on = "" if hardware.nodes == 1 else f" of {hardware.nodes} nodes"
    say(f"training on {hardware.world_size} processes{on}")
    base.model.to("cpu")
    free_memory()
    log = folder / "processes.log"
    with stage_on_nodes(stage, token) if hardware.nodes > 1 else nullcontext() as others:
        meeting = None if others is None else others.meeting
        wait = partial(wait_for, told_at=stage, look=None if others is None else others.look)
        code = run_processes(torchrun(hardware, folder, meeting), log, environment(hardware.processes), wait)
        fault = None if others is None else others.fault_after(code)
    base.model.to(hardware.device)
    if code:
        error = stage / ERROR
        reason = error.read_text() if error.exists() else fault or f"a training process ended with code {code}"
        raise RuntimeError(f"{reason}; see {log}")
    shutil.rmtree(stage)


def torchrun(hardware: HardwareConfig, folder: Path, meeting: Meeting | None) -> list[str]:
    """The command that starts this node's processes.

    Args:
        hardware: how many there are.
        folder: the run folder.
        meeting: where they meet those of other nodes; None where there are none.
    """
    command = [sys.executable, "-m", "torch.distributed.run", f"--nproc-per-node={hardware.processes}"]
    if meeting is None:
        command += ["--standalone"]  # a free port for each run
    else:
        command += [f"--nnodes={hardware.nodes}", f"--node-rank={meeting.rank}", "--rdzv-backend=static"]
        command += [f"--rdzv-endpoint={meeting.where}"]
    return [*command, "-m", "alignlab.training.worker", str(folder)]


def run_processes(
    command: list[str], log: Path, environment: dict[str, str], wait: "Callable[[subprocess.Popen[bytes]], int]"
) -> int:
    """Exit code of a command whose processes end with this one, however this one ends: see worker.end_with_parent.

    A signal gives them time to save; a second one does not. Ctrl-C in a terminal reaches this process alone.

    Args:
        command: torchrun's.
        log: takes what it prints.
        environment: its variables.
        wait: waits for its end and returns its code.
    """
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command,
            stdin=subprocess.PIPE,
            stdout=stream,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,
        ) as started,
    ):
        try:
            return wait(started)
        except KeyboardInterrupt:
            started.terminate()
            started.wait()
            raise
        except BaseException:
            started.terminate()
            with suppress(subprocess.TimeoutExpired):
                started.wait(timeout=PATIENCE_SECONDS)
            started.kill()  # torchrun may be waiting for another node, deaf to signals
            raise
        finally:
            assert started.stdin is not None
            started.stdin.close()


def wait_for(started: "subprocess.Popen[bytes]", told_at: Path, look: Callable[[], None] | None = None) -> int:
    """Exit code of the processes; until then what the first of them tells is shown as this process's own progress.

    Args:
        started: torchrun.
        told_at: where the first process keeps its progress.json.
        look: called now and then; raises if they must end.
    """
    begun = time.time()
    with open_in(activity.stages, "starting processes"), ExitStack() as stack:
        count: Count | None = None
        while True:
            with suppress(subprocess.TimeoutExpired):
                return started.wait(timeout=LOOK_SECONDS)
            if look is not None:
                look()
            told = told_in(told_at, since=begun)
            if told is None or not told.total:
                continue
            if count is None:
                count = stack.enter_context(progress(told.stage, told.total))
            count.advance(told.done - count.done)
            activity.metrics = told.metrics


def environment(processes: int) -> dict[str, str]:
    """This process's environment, with alignlab importable and its cores divided among the processes."""
    package_root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    threads = max(1, torch.get_num_threads() // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": search}
