"""Trains in this process, or in several through torchrun; the effective batch is the same either way."""

import json
import os
import shutil
import subprocess
import sys
import threading
from dataclasses import asdict
from pathlib import Path

import torch
from datasets import Dataset

from alignlab.config.hydra.compose import load_run_config
from alignlab.config.schema import RunConfig
from alignlab.io.atomic import write_text
from alignlab.models.base import Base, free_memory, load_base
from alignlab.runs.progress import quiet_libraries, say
from alignlab.runs.tracking import tracking
from alignlab.training.preference import PreferenceLoss, train_preference

STAGE = "stage"
ERROR = "error.txt"


def train_on_processes(config: RunConfig, base: Base, rows: Dataset, loss: PreferenceLoss, folder: Path) -> Path:
    """Trains an adapter into `folder/adapter` and returns that folder.

    Args:
        config: the run; hardware.processes says how many processes train.
        base: the base model; other processes load it again from its path.
        rows: tokenised pairs with tilted reference log-probabilities.
        loss: what is minimised.
        folder: the run folder; it already holds config.json.

    Raises:
        RuntimeError: if a process fails; names the log.
    """
    if config.hardware.processes == 1:
        return _train(config, base, rows, loss, folder)
    stage = folder / STAGE
    shutil.rmtree(stage, ignore_errors=True)
    rows.save_to_disk(str(stage / "rows"))
    (stage / "stage.json").write_text(json.dumps({"base": base.path, "loss": asdict(loss)}))
    say(f"training on {config.hardware.processes} processes")
    base.model.to("cpu")
    free_memory()
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]  # --standalone: a free port for each run
    command += [f"--nproc-per-node={config.hardware.processes}", "-m", "alignlab.training.launch", str(folder)]
    log = folder / "processes.log"
    code = _run(command, log, _environment(config.hardware.processes))
    base.model.to(config.hardware.device)
    if code:
        told = stage / ERROR
        reason = told.read_text() if told.exists() else f"a training process ended with code {code}"
        raise RuntimeError(f"{reason}; see {log}")
    shutil.rmtree(stage)
    return folder / "adapter"


def _run(command: list[str], log: Path, environment: dict[str, str]) -> int:
    """Exit code of a command whose processes end with this one, however this one ends: see _end_with_parent."""
    with (
        log.open("wb") as stream,
        subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=stream, stderr=subprocess.STDOUT, env=environment
        ) as started,
    ):
        try:
            return started.wait()
        finally:
            assert started.stdin is not None
            started.stdin.close()


def _train(config: RunConfig, base: Base, rows: Dataset, loss: PreferenceLoss, folder: Path) -> Path:
    with tracking(config, folder) as tracker:
        return train_preference(
            base,
            rows,
            loss,
            trainer=config.trainer,
            peft=config.peft,
            hardware=config.hardware,
            seed=config.seed,
            folder=folder,
            callbacks=[tracker],
        )


def _environment(processes: int) -> dict[str, str]:
    """This process's environment, with alignlab importable and its share of the cores shared out again."""
    package_root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    threads = max(1, torch.get_num_threads() // processes)
    return {**os.environ, "OMP_NUM_THREADS": str(threads), "PYTHONPATH": search}


def worker(folder: Path) -> None:
    """One of the processes that torchrun starts; what stops it is told to the process that started torchrun."""
    _end_with_parent()
    quiet_libraries()
    try:
        _train_one_rank(folder)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        write_text(folder / STAGE / ERROR, f"{type(error).__name__}: {lines[0]}")
        raise


def _train_one_rank(folder: Path) -> None:
    config = load_run_config(folder / "config.json")
    stage = json.loads((folder / STAGE / "stage.json").read_text())
    rank = int(os.environ["LOCAL_RANK"])
    device = f"cuda:{rank}" if config.hardware.device == "cuda" else "cpu"
    base = load_base(config.model, folder=Path(stage["base"]), device=device)
    rows = Dataset.load_from_disk(str(folder / STAGE / "rows"))
    if rank:
        config.tracker.kind = "local"
    _train(config, base, rows, PreferenceLoss(**stage["loss"]), folder)


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
