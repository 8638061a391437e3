"""Where training metrics go: metrics.jsonl in the run folder always, wandb when asked. TRL's metric names."""

import json
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignlab.config.recipe import TrackerSettings
from alignlab.io.atomic import write_jsonl


class Tracker(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Receives the trainer's logs."""

    def __init__(self, path: Path, wandb_run: Any | None) -> None:
        self.path, self.wandb_run = path, wandb_run

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drops what a killed run logged past the checkpoint that this one goes on from: those steps come again."""
        if state.is_world_process_zero and self.path.exists():
            write_jsonl(self.path, _up_to(self.path, state.global_step))

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Appends one line, from the first process only."""
        if logs and state.is_world_process_zero:
            self.log(state.global_step, logs)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line of values at a step."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **{name: _plain(value) for name, value in values.items()}}) + "\n")
        if self.wandb_run is not None:
            self.wandb_run.log(values, step=step)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null says that a number is unknown."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of a log up to a step, without a torn last line and without the summary of an ended training."""
    kept = []
    for line in path.read_text(encoding="utf-8").splitlines():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["step"] <= step and "train_runtime" not in row:
            kept.append(row)
    return kept


@contextmanager
def tracking(settings: TrackerSettings, folder: Path) -> Iterator[Tracker]:
    """The tracker of one run, closed at its end."""
    run = _wandb_run(settings, folder)
    try:
        yield Tracker(folder / "metrics.jsonl", run)
    finally:
        if run is not None:
            run.finish()


def _wandb_run(settings: TrackerSettings, folder: Path) -> Any | None:
    kind = settings.kind
    if kind == "auto":
        kind = "wandb" if os.environ.get("WANDB_API_KEY") else "local"
    if kind == "local":
        return None
    import wandb

    return wandb.init(
        project=settings.project,
        dir=str(folder),
        mode="online" if kind == "wandb" else "offline",
        group=settings.group,
        name=settings.name,
        config=settings.config,
        settings=wandb.Settings(console="off", silent=True, x_disable_meta=True),
    )
