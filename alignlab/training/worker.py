"""One of the processes that torchrun starts: `python -m alignlab.training.worker RUN_FOLDER`."""

import json
import os
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignlab.config.recipe import TrainingRecipe
from alignlab.io.atomic import write_text
from alignlab.models.base import Base, load_base
from alignlab.runs.activity import at_work
from alignlab.runs.progress import quiet_libraries
from alignlab.runs.signals import catching_signals
from alignlab.training.classifier import NewClassifier, classifier_here
from alignlab.training.conditioned import Condition
from alignlab.training.launch import ERROR, ROWS, STAGE, STAGE_FILE, train_here
from alignlab.training.losses import PreferenceLoss
from alignlab.training.sft import sft_here


@dataclass(frozen=True)
class Stage:
    """What is trained."""

    folder: Path
    """The run folder."""
    recipe: TrainingRecipe
    base: Path
    device: str
    rows: Dataset
    told: dict[str, Any]
    """Settings of this kind of training, see STAGE_FILE."""

    def load_base(self) -> Base:
        """The base model, on this process's device."""
        return load_base(self.recipe.model, folder=self.base, device=self.device)


def _preference(stage: Stage) -> None:
    given = stage.told["condition"]
    condition = None if given is None else Condition(**given | {"objectives": tuple(given["objectives"])})
    loss = PreferenceLoss(**stage.told["loss"])
    train_here(stage.recipe, stage.load_base(), stage.rows, loss, stage.folder, condition)


def _sft(stage: Stage) -> None:
    sft_here(stage.recipe, stage.load_base(), stage.rows, stage.folder)


def _classifier(stage: Stage) -> None:
    classifier_here(stage.recipe, stage.rows, NewClassifier(**stage.told["classifier"]), stage.folder)


KINDS: dict[str, Callable[[Stage], None]] = {"preference": _preference, "sft": _sft, "classifier": _classifier}
"""How each kind of stage is trained by one of its processes."""


def main(folder: Path) -> None:
    """Train as one process of several; the first error is written for the process that started torchrun."""
    end_with_parent()
    quiet_libraries()
    try:
        with catching_signals():
            _train(folder)
    except Exception as error:
        lines = str(error).splitlines() or [""]
        told = folder / STAGE / ERROR
        if not told.exists():  # what comes later is mostly that this process is gone
            write_text(told, f"{type(error).__name__}: {lines[0]}")
        raise


def _train(folder: Path) -> None:
    told = json.loads((folder / STAGE / STAGE_FILE).read_text())
    recipe = TrainingRecipe.from_json(told["recipe"])
    rank, local_rank = int(os.environ["RANK"]), int(os.environ["LOCAL_RANK"])
    if rank:
        recipe = replace(recipe, tracker=replace(recipe.tracker, kind="local"))
    device = f"cuda:{local_rank}" if recipe.hardware.device == "cuda" else "cpu"
    rows = Dataset.load_from_disk(str(folder / STAGE / ROWS))
    with nullcontext() if rank else at_work(folder / STAGE, launched=True):
        KINDS[told["kind"]](Stage(folder, recipe, Path(told["base"]), device, rows, told))


def end_with_parent() -> None:
    """Ends this process when the one that started torchrun is gone, also when that was killed.

    torchrun's processes inherit its standard input, a pipe whose other end only that process holds. Without this a
    killed run would leave processes at work in a folder that the next run takes for free.
    """

    def wait_for_the_end() -> None:
        os.read(sys.stdin.fileno(), 1)
        os._exit(1)

    threading.Thread(target=wait_for_the_end, daemon=True).start()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
