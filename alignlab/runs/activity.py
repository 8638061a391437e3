"""What the job of this process is doing at the moment; told to the process that watches a sweep by a small file."""

import json
import math
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from alignlab.io.atomic import write_json

PROGRESS = "progress.json"
"""In the folder of a launched run while it is at work."""
TELL_SECONDS = 2.0
"""Between two looks at what may have changed."""
MOST_METRICS = 3
"""Of a training's log line, in the order of LOGGED."""
LOGGED = ("loss", "rewards/accuracies", "rewards/margins", "mean_token_accuracy", "accuracy", "reward", "grad_norm")


@dataclass(frozen=True)
class Snapshot:
    """A moment of a job."""

    stage: str = ""
    done: int = 0
    total: int = 0
    """Steps of the pass at hand; 0 where none is counted."""
    left: float | None = None
    """Seconds; None where nobody knows."""
    metrics: dict[str, float] = field(default_factory=dict)
    error: str | None = None

    @classmethod
    def from_json(cls, record: Any) -> "Snapshot":
        """The moment that a record says; an unreadable part is left out."""
        known = record if isinstance(record, dict) else {}
        metrics = known.get("metrics")
        error = known.get("error")
        return cls(
            stage=str(known.get("stage", "")),
            done=int(_number(known.get("done")) or 0),
            total=int(_number(known.get("total")) or 0),
            left=_number(known.get("left")),
            metrics=finite(metrics if isinstance(metrics, dict) else {}),
            error=None if error is None else str(error),
        )


def finite(values: Mapping[str, object]) -> dict[str, float]:
    """Those values that are finite numbers."""
    known = {name: _number(value) for name, value in values.items()}
    return {name: value for name, value in known.items() if value is not None}


def _number(value: object) -> float | None:
    is_number = isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
    return float(value) if is_number else None  # type: ignore[arg-type]


class Count:
    """Finished steps of one pass and their rate.

    The rate counts from the first finished step on: before it lie warm-up and, in a resumed run, the steps that an
    earlier attempt has done.

    Args:
        label: what is counted.
        total: steps of the whole pass.
        now: time.monotonic() where the pass begins, for tests.
    """

    def __init__(self, label: str, total: int, *, now: float | None = None) -> None:
        self.label, self.total = label, total
        self._start = time.monotonic() if now is None else now
        self.done = 0
        self._first: tuple[float, int] | None = None

    def advance(self, steps: int = 1, *, now: float | None = None) -> None:
        """Note finished steps."""
        self.done += steps
        if self._first is None and steps:
            self._first = (time.monotonic() if now is None else now, self.done)

    def seconds(self, now: float) -> float:
        """Since the pass began."""
        return now - self._start

    def rate(self, now: float) -> float:
        """Finished steps a second; 0 where none was finished."""
        since, before = self._start, 0
        if self._first is not None and self.done > self._first[1]:
            since, before = self._first
        return (self.done - before) / max(now - since, 1e-6)

    def left(self, now: float) -> float | None:
        """Seconds to the end of the pass at this rate."""
        rate = self.rate(now)
        return (self.total - self.done) / rate if rate else None


class Activity:
    """Stages and passes that are open, the innermost last, and the latest metrics of a training."""

    def __init__(self) -> None:
        self.folder: Path | None = None
        """Of the sweep's run at work; None outside of one."""
        self.stages: list[str] = []
        self.counts: list[Count] = []
        self.metrics: dict[str, float] = {}
        self.errors: dict[Path, str] = {}
        """Of runs of this process that did not end well."""

    def log(self, logs: Mapping[str, object]) -> None:
        """Keep what people follow of a training's log line."""
        known = finite(logs)
        found = {name.removeprefix("rewards/"): known[name] for name in LOGGED if name in known}
        if found:
            self.metrics = dict(list(found.items())[:MOST_METRICS])

    def snapshot(self, *, error: str | None = None) -> Snapshot:
        """The present moment. Another thread may ask, so each list is read once."""
        count, stage = next(reversed(self.counts), None), next(reversed(self.stages), "")
        if count is None:
            return Snapshot(stage, metrics=self.metrics, error=error)
        left = count.left(time.monotonic())
        return Snapshot(count.label, count.done, count.total, left, self.metrics, error)


activity = Activity()


@contextmanager
def open_in(held: list[Any], item: Any) -> Iterator[None]:
    """An item of a list while the block is open."""
    held.append(item)
    try:
        yield
    finally:
        held.remove(item)


@contextmanager
def at_work(folder: Path, *, launched: bool) -> Iterator[None]:
    """A run of a sweep while it is at work in this process.

    Args:
        folder: of the run.
        launched: keep its progress.json current for the process that launched it; the file is gone once the run has
            ended well.
    """
    folder = folder.absolute()
    activity.folder, activity.metrics = folder, {}
    activity.errors.pop(folder, None)
    over = threading.Event()
    teller = threading.Thread(target=_keep_telling, args=(folder, over), name="telling", daemon=True)
    if launched:
        teller.start()
    try:
        yield
    except BaseException as error:
        activity.errors[folder] = next(iter(str(error).splitlines()), type(error).__name__)
        raise
    finally:
        activity.folder = None
        over.set()
        if launched:
            teller.join()
            _tell_end(folder, activity.errors.get(folder))


def _tell_end(folder: Path, error: str | None) -> None:
    if error is not None:
        _tell(folder, activity.snapshot(error=error))
        return
    with suppress(OSError):
        (folder / PROGRESS).unlink(missing_ok=True)


def _keep_telling(folder: Path, over: threading.Event) -> None:
    told = None
    while True:
        now = activity.snapshot()
        if now != told:
            _tell(folder, now)
            told = now
        if over.wait(TELL_SECONDS):
            return


def _tell(folder: Path, now: Snapshot) -> None:
    with suppress(OSError):  # a full disk stops the job, not what tells of it
        write_json(folder / PROGRESS, asdict(now))


def told_in(folder: Path, *, since: float) -> Snapshot | None:
    """What a launched run last told; None where it has not begun.

    Args:
        folder: of the run.
        since: time of day before which a file is an earlier attempt's.
    """
    file = folder / PROGRESS
    try:
        if file.stat().st_mtime < since:
            return None
        return Snapshot.from_json(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, RecursionError):
        return None
