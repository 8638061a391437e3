"""Train in this process, or in several through torchrun; the effective batch is the same either way."""

import json
import os
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack, nullcontext, suppress
from dataclasses import asdict, replace
from functools import partial
from pathlib import Path

import torch
from datasets import Dataset

from alignlab.config.recipe import TrainingRecipe
from alignlab.io.atomic import write_json, write_text
from alignlab.models.base import Base, free_memory, load_base
from alignlab.runs.activity import Count, activity, at_work, open_in, told_in
from alignlab.runs.progress import progress, quiet_libraries, say
from alignlab.runs.signals import catching_signals
from alignlab.runs.tracking import tracking
from alignlab.training.conditioned import Condition, ConditionedTrainer
from alignlab.training.conflict import ConflictAverseTrainer, ConflictAversion
from alignlab.training.losses import PreferenceLoss
from alignlab.training.preference import PreferenceTrainer, train_preference

STAGE = "stage"
ERROR = "error.txt"
LOOK_SECONDS = 1.0
"""Between two looks at how far the processes are."""


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
        recipe: how it is trained; recipe.hardware.processes says on how many processes.
        base: the base model; other processes load it again from its path.
        rows: tokenised pairs with tilted reference log-probabilities.
        loss: what is minimised.
        folder: the run folder.
        condition: how the adapter depends on w, if it does.
        conflict: how the gradients of several objectives are combined, if they are; in this process only.

    Raises:
        RuntimeError: if a process fails; names the log.
    """
    if conflict is not None:
        recipe = replace(recipe, hardware=replace(recipe.hardware, processes=1, fsdp=False))
    hardware = recipe.hardware
    if hardware.processes == 1:
        return _train(recipe, base, rows, loss, folder, condition, conflict)
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    rows.save_to_disk(str(stage / "rows"))
    told = {"base": base.path, "loss": asdict(loss), "recipe": recipe.to_json()}
    write_json(stage / "stage.json", told | {"condition": None if condition is None else asdict(condition)})
    say(f"training on {hardware.processes} processes")
    base.model.to("cpu")
    free_memory()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # --standalone: a free port for each run
    command += [f"--nproc-per-node={hardware.processes}", "-m", "alignlab.training.launch", str(folder)]
    log = folder / "processes.log"
    code = _run(command, log, _environment(hardware.processes))
    base.model.to(hardware.device)
    if code:
        error = stage / ERROR
        reason = error.read_text() if error.exists() else f"a training process ended with code {code}"
        raise RuntimeError(f"{reason}; see {log}")
    shutil.rmtree(stage)
    return folder / "adapter"


def _run(command: list[str], log: Path, environment: dict[str, str]) -> int:
    """Exit code of a command whose processes end with this one, however this one ends: see _end_with_parent.

    A signal gives them time to save; a second one does not. Ctrl-C in a terminal reaches this process alone.
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
            return _wait(started, log.parent / STAGE)
        except KeyboardInterrupt:
            started.terminate()
            started.wait()
            raise
        finally:
            assert started.stdin is not None
            started.stdin.close()


def _wait(started: "subprocess.Popen[bytes]", told_at: Path) -> int:
    """Exit code of the processes; until then what the first of them tells is shown as this process's own progress.

    Args:
        started: torchrun.
        told_at: where the first process keeps its progress.json.
    """
    begun = time.time()
    with open_in(activity.stages, "starting processes"), ExitStack() as stack:
        count: Count | None = None
        while True:
            with suppress(subprocess.TimeoutExpired):
                return started.wait(timeout=LOOK_SECONDS)
            told = told_in(told_at, since=begun)
            if told is None or not told.total:
                continue
            if count is None:
                count = stack.enter_context(progress(told.stage, told.total))
            count.advance(told.done - count.done)
            activity.metrics = told.metrics


def _train(
    recipe: TrainingRecipe,
    base: Base,
    rows: Dataset,
    loss: PreferenceLoss,
    folder: Path,
    condition: Condition | None,
    conflict: ConflictAversion | None = None,
) -> Path:
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


def _environment(processes: int) -> dict[str, str]:
    """This process's environment, with alignlab importable and its cores divided among the processes."""
    package_root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    threads = max(1, torch.get_num_threads() // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": search}


def worker(folder: Path) -> None:
    """One of the processes that torchrun starts; an error is written for the process that started torchrun."""
    _end_with_parent()
    quiet_libraries()
    try:
        with catching_signals():
            _train_one_rank(folder)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        write_text(folder / STAGE / ERROR, f"{type(error).__name__}: {lines[0]}")
        raise


def _train_one_rank(folder: Path) -> None:
    stage = json.loads((folder / STAGE / "stage.json").read_text())
    recipe = TrainingRecipe.from_json(stage["recipe"])
    rank = int(os.environ["LOCAL_RANK"])
    device = f"cuda:{rank}" if recipe.hardware.device == "cuda" else "cpu"
    base = load_base(recipe.model, folder=Path(stage["base"]), device=device)
    rows = Dataset.load_from_disk(str(folder / STAGE / "rows"))
    if rank:
        recipe = replace(recipe, tracker=replace(recipe.tracker, kind="local"))
    given = stage["condition"]
    condition = None if given is None else Condition(**given | {"objectives": tuple(given["objectives"])})
    with nullcontext() if rank else at_work(folder / STAGE, launched=True):
        _train(recipe, base, rows, PreferenceLoss(**stage["loss"]), folder, condition)


def _end_with_parent() -> None:
    """Ends this process when the one that holds the run folder is gone, also when that was killed.

    torchrun's processes inherit its standard input, a pipe whose other end only that process holds. Without this a
    killed run would leave processes at work in a folder that the next run takes for free.
    """

    def wait_for_the_end() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
