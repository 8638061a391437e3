"""Trains in this process, or in several through torchrun; the effective batch is the same either way."""

import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

from datasets import Dataset

from alignlab.config.compose import load_run_config
from alignlab.config.schema import RunConfig
from alignlab.models.base import Base, load_base
from alignlab.preference.trainer import PreferenceLoss, train_preference
from alignlab.runs.progress import quiet_libraries, say
from alignlab.runs.tracking import tracking

STAGE = "stage"


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
    rows.save_to_disk(str(folder / STAGE / "rows"))
    (folder / STAGE / "stage.json").write_text(json.dumps({"base": base.path, "loss": asdict(loss)}))
    say(f"training on {config.hardware.processes} processes")
    base.model.to("cpu")
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone"]
    command += [f"--nproc-per-node={config.hardware.processes}", "-m", "alignlab.preference.launch", str(folder)]
    log = folder / "processes.log"
    with log.open("wb") as stream:
        ended = subprocess.run(command, stdout=stream, stderr=subprocess.STDOUT, env=_environment(), check=False)
    base.model.to(config.hardware.device)
    if ended.returncode:
        raise RuntimeError(f"a training process ended with code {ended.returncode}; see {log}")
    return folder / "adapter"


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


def _environment() -> dict[str, str]:
    """This process's environment, with alignlab importable and the cores shared out."""
    package_root = str(Path(__file__).resolve().parents[2])
    search = os.pathsep.join(filter(None, [package_root, os.environ.get("PYTHONPATH")]))
    return {"OMP_NUM_THREADS": "1", **os.environ, "PYTHONPATH": search}


def worker(folder: Path) -> None:
    """One of the processes that torchrun starts."""
    quiet_libraries()
    config = load_run_config(folder / "config.json")
    stage = json.loads((folder / STAGE / "stage.json").read_text())
    rank = int(os.environ["LOCAL_RANK"])
    device = f"cuda:{rank}" if config.hardware.device == "cuda" else "cpu"
    base = load_base(config.model, folder=Path(stage["base"]), device=device)
    rows = Dataset.load_from_disk(str(folder / STAGE / "rows"))
    if rank:
        config.tracker.kind = "local"
    _train(config, base, rows, PreferenceLoss(**stage["loss"]), folder)


if __name__ == "__main__":
    worker(Path(sys.argv[1]))
