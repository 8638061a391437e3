"""Where training metrics go: metrics.jsonl in the run folder always, a tracker when asked. TRL's metric names."""

import importlib.util
import json
import math
import os
import secrets
import socket
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal
from urllib.parse import urlsplit

from transformers import TrainerCallback

from alignlab.config.recipe import TrackerSettings
from alignlab.errors import without_secrets
from alignlab.io.atomic import write_jsonl, write_text
from alignlab.runs.progress import say
from alignlab.runs.result import TRACKER_ID
from alignlab.runs.trackers import TensorboardRun, TrackedRun, TrackioRun, WandbRun

_Mode = Literal["online", "offline"]
CONNECT_TIMEOUT_S = 5.0
"""For a connection to wandb's server."""
INIT_TIMEOUT_S = 30.0
"""For wandb's own start; its default of 90 s holds a compute node without a network for that long."""


class Tracker(TrainerCallback):  # type: ignore[misc]  # transformers is untyped here
    """Receives the trainer's logs."""

    def __init__(self, path: Path, tracked: TrackedRun | None) -> None:
        self.path, self.tracked = path, tracked

    def on_train_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Drops what a killed run logged past the checkpoint that this one goes on from: those steps come again."""
        if state.is_world_process_zero and self.path.exists():
            write_jsonl(self.path, _up_to(self.path, state.global_step))
        if self.tracked is not None:
            self.tracked.begin(state.global_step)

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        """Appends one line, from the first process only."""
        if logs and state.is_world_process_zero:
            self.log(state.global_step, logs)

    def log(self, step: int, values: dict[str, Any]) -> None:
        """Appends one line of values at a step."""
        with self.path.open("a", encoding="utf-8") as stream:
            stream.write(json.dumps({"step": step, **{name: _plain(value) for name, value in values.items()}}) + "\n")
        if self.tracked is not None:
            self.tracked.log(values, step)


def _plain(value: Any) -> Any:
    """JSON has no NaN and no infinity: null says that a number is unknown."""
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _up_to(path: Path, step: int) -> list[dict[str, Any]]:
    """The lines of a log up to a step, without a torn last line and without the summary of an ended training."""
    kept = []
    for line in path.read_text(encoding="utf-8").split("\n"):
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
    run = tracked_run(settings, folder)
    try:
        yield Tracker(folder / "metrics.jsonl", run)
    finally:
        if run is not None:
            run.finish()


def tracked_run(settings: TrackerSettings, folder: Path, *, job_type: str = "run") -> TrackedRun | None:
    """The folder's run on its tracker, the same one whenever it is opened again; None where none is asked for.

    Args:
        settings: of the tracker.
        folder: of the run; `wandb_id` in it keeps the name that the tracker knows it by.
        job_type: what it is filed under.
    """
    if settings.kind == "trackio":
        return TrackioRun(settings, _id(folder), job_type)
    if settings.kind == "tensorboard":
        _id(folder)  # says that the run is tracked
        return TensorboardRun(folder)
    opened = wandb_run(settings, folder, job_type=job_type)
    return None if opened is None else WandbRun(opened)


def wandb_run(settings: TrackerSettings, folder: Path, *, job_type: str = "run") -> Any | None:
    """The folder's run on wandb, the same one whenever it is opened again; None where wandb is not asked for.

    Args:
        settings: of the tracker.
        folder: of the run; `wandb_id` in it keeps the name that wandb knows it by.
        job_type: what it is filed under.
    """
    mode = wandb_mode(settings.kind)
    if mode is None:
        return None
    import wandb

    def begin(mode: _Mode) -> Any:
        """Open the run on wandb."""
        return wandb.init(
            project=settings.project,
            entity=settings.entity,
            tags=settings.tags,
            id=_id(folder),
            resume="allow" if mode == "online" else None,
            job_type=job_type,
            dir=str(folder),
            mode=mode,
            group=settings.group,
            name=settings.name,
            config=without_secrets(settings.config),
            settings=wandb.Settings(console="off", silent=True, x_disable_meta=True, init_timeout=INIT_TIMEOUT_S),
        )

    if mode == "online" and not _reachable():
        return _offline(begin, "its server cannot be reached")
    try:
        return begin(mode)
    except wandb.errors.Error as error:  # the key is refused, or the server answers nothing
        if mode == "offline":
            raise
        return _offline(begin, " ".join(str(error).split())[:200])


def _id(folder: Path) -> str:
    """What the tracker knows the folder's run by: a resumed run goes on there, and one that is run anew is another."""
    file = folder / TRACKER_ID
    if not file.exists():
        write_text(file, secrets.token_hex(8))
    return file.read_text().strip()


def _offline(begin: Callable[[_Mode], Any], reason: str) -> Any:
    say(f"tracker: wandb is offline for this run: {reason}; `wandb sync` sends what it wrote to the run folder")
    return begin("offline")


def wandb_mode(kind: str) -> _Mode | None:
    """online, offline or None for a local log alone; WANDB_MODE and WANDB_DISABLED are obeyed as wandb does.

    Args:
        kind: the tracker's, as in conf/tracker.
    """
    wanted = os.environ.get("WANDB_MODE", "").strip().lower()
    off = wanted == "disabled" or os.environ.get("WANDB_DISABLED", "").lower() in ("true", "1")
    if kind in ("local", "trackio", "tensorboard") or off or (kind == "auto" and not os.environ.get("WANDB_API_KEY")):
        return None
    if kind == "auto" and importlib.util.find_spec("wandb") is None:
        say("tracker=auto: WANDB_API_KEY is set and wandb is not installed; only metrics.jsonl is written")
        return None
    return "offline" if kind == "wandb_offline" or wanted in ("offline", "dryrun") else "online"


def _reachable() -> bool:
    """Whether wandb's server takes a connection within seconds; through a proxy it is not asked."""
    if urllib.request.getproxies():
        return True
    address = urlsplit(os.environ.get("WANDB_BASE_URL") or "https://api.wandb.ai")
    port = address.port or (80 if address.scheme == "http" else 443)
    try:
        with socket.create_connection((address.hostname or "", port), timeout=CONNECT_TIMEOUT_S):
            return True
    except OSError:
        return False
