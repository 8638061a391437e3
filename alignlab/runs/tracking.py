"""Where training metrics go: metrics.jsonl in the run folder always, wandb when asked. TRL's metric names."""

import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from alignlab.config.schema import RunConfig


class Tracker(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Receives the trainer's logs."""

    def __init__(self, path: Path, wandb_run: Any | None) -> None:
        self.path, self.wandb_run = path, wandb_run

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Appends one line, from the first process only."""
        if logs and state.is_world_process_zero:
            self.log(state.global_step, logs)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line of values at a step."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **values}) + "\n")
        if self.wandb_run is not None:
            self.wandb_run.log(values, step=step)


@contextmanager
def tracking(config: RunConfig, folder: Path) -> Iterator[Tracker]:
    """The tracker of one run, closed at its end. One wandb group a (algorithm, model, dataset)."""
    run = _wandb_run(config, folder)
    try:
        yield Tracker(folder / "metrics.jsonl", run)
    finally:
        if run is not None:
            run.finish()


def _wandb_run(config: RunConfig, folder: Path) -> Any | None:
    kind = config.tracker.kind
    if kind == "auto":
        kind = "wandb" if os.environ.get("WANDB_API_KEY") else "local"
    if kind == "local":
        return None
    import wandb

    return wandb.init(
        project=config.tracker.project,
        dir=str(folder),
        mode="online" if kind == "wandb" else "offline",
        group=f"{config.algorithm.name}/{config.model.name}/{config.dataset.name}",
        name=f"w={config.w} seed={config.seed}",
        config=asdict(config),
        settings=wandb.Settings(console="off", silent=True, x_disable_meta=True),
    )
