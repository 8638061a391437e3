"""A run's folder: one user at a time, one log, one result.json whatever happens."""

import importlib.metadata
import logging
import math
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from alignlab import __version__
from alignlab.config.plan import MakeRun, Plan
from alignlab.config.uses import EVERY_RUN_WRITES
from alignlab.errors import ConfigError, JobFailed, OnlyPlanned, masked
from alignlab.io.atomic import remove_path, remove_unfinished, write_json
from alignlab.io.hashes import hashes_below, sealed
from alignlab.runs.activity import activity, open_in
from alignlab.runs.disk import full_line, is_full
from alignlab.runs.progress import say, signs_of_life
from alignlab.runs.result import Metrics, Outcome, RunResult, write_result
from alignlab.runs.signals import catching_signals

CONFIG = "config.json"
OF_THE_TRAINING = ("checkpoints", "stage")
"""Folders that nobody needs once a run is done."""
A_PAGE_TAKES_S = 60.0
"""Seconds within which a living process has written a page or a picture."""
LIBRARIES = ("torch", "transformers", "trl", "peft", "datasets", "hydra-core")


class RunFolder:
    """The open folder of one run. Use `recording`.

    Args:
        path: the folder.
        plan: the run.
        make_run: runs a prerequisite, unless that has been done, and returns its folder.
    """

    def __init__(self, path: Path, plan: Plan[Any], make_run: MakeRun) -> None:
        self.path, self.make_run, self._plan = path, make_run, plan
        self.seconds: dict[str, float] = {}
        self._started = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Times a stage of the job, in seconds."""
        start = time.perf_counter()
        try:
            with open_in(activity.stages, name):
                yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + time.perf_counter() - start, 3)

    def record(self, outcome: Outcome, status: str, error: str | None) -> RunResult:
        """Write result.json and return what it says.

        Args:
            outcome: what the job filled in.
            status: done, failed or interrupted.
            error: one line; None where it is done.
        """
        self.seconds["total"] = round(time.perf_counter() - self._started, 3)
        objectives, plan = outcome.objectives, self._plan
        result = RunResult(
            status=status,
            algorithm=plan.algorithm.name,
            model=plan.model.settings.name,
            dataset=plan.dataset,
            seed=plan.seed,
            w=None if objectives is None else objectives.plain,
            weights=None if objectives is None else objectives.weights,
            beta=outcome.beta,
            loss_type=outcome.loss_type,
            recipe=outcome.recipe,
            metrics=_without_nan(outcome.metrics),
            axes=outcome.axes,
            artifacts=outcome.artifacts,
            files=self._files(outcome) if status == "done" else {},
            inputs=outcome.inputs,
            seconds=self.seconds,
            versions={"alignlab": __version__, **{name: _version(name) for name in LIBRARIES}},
            error=error,
            extra=_without_nan(outcome.extra),
        )
        write_result(self.path, result)
        return result

    def _files(self, outcome: Outcome) -> dict[str, str]:
        """Hashes of what the run wrote; what `after_run` writes is another run's, or is drawn again."""
        uses = self._plan.algorithm.uses
        names = [*outcome.artifacts.values(), *(() if uses.after_run else uses.writes)]
        return hashes_below(self.path, [name for name in names if not name.startswith("..")])


@contextmanager
def claim(folder: Path, *, wait: bool) -> Iterator[None]:
    """Holds the folder for this process; the lock vanishes with the process, however that ends.

    Raises:
        ConfigError: if another process holds it and `wait` is false.
    """
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / ".lock")
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if not wait:
            raise ConfigError(
                f"{folder}: in use by another process; wait for it, or choose another hydra.run.dir"
            ) from None
        say(f"waits for another process: {folder}")
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def is_in_use(folder: Path) -> bool:
    """Whether a process holds the folder."""
    if not (folder / ".lock").exists():
        return False
    try:
        with FileLock(folder / ".lock").acquire(timeout=0):
            return False
    except Timeout:
        return True


@contextmanager
def recording(folder: Path, plan: Plan[Any], make_run: MakeRun) -> Iterator["tuple[RunFolder, Outcome]"]:
    """Runs a job's body: its log goes to job.log, and its end, good or bad, to result.json.

    Args:
        folder: where the run is recorded.
        plan: what is run.
        make_run: runs prerequisites.

    Raises:
        JobFailed: in place of any error, after it was recorded.
        ConfigError: as it is, after it was recorded.
        OnlyPlanned: as it is; the run is recorded as interrupted.
    """
    uses = plan.algorithm.uses
    run = RunFolder(folder, plan, make_run)
    outcome = Outcome(objectives=plan.objectives if uses.trains or uses.weighs else None)
    with _job_log(folder / "job.log"), signs_of_life(), catching_signals():
        try:
            if plan.force:
                remove_outputs(folder, plan)
            write_json(folder / CONFIG, sealed(plan.record))
            yield run, outcome
            _check_finite(outcome.metrics)
            run.record(outcome, "done", None)
        except KeyboardInterrupt:
            run.record(outcome, "interrupted", "interrupted; rerun the same command to resume")
            raise
        except OnlyPlanned as planned:
            run.record(outcome, "interrupted", str(planned))
            raise
        except ConfigError as error:
            logging.getLogger("alignlab").error("%s", error)
            run.record(outcome, "failed", " ".join(str(error).split()))
            raise
        except (Exception, SystemExit) as error:
            logging.getLogger("alignlab").exception("job failed")
            line = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else ''}"
            line = full_line(folder, error) if is_full(error) else masked(line)
            _record_failure(run, outcome, line)
            raise JobFailed(f"{folder}: {line}\n  the whole story: {folder / 'job.log'}") from error
        else:
            tidy(folder, plan)  # only now: a run that is killed while it measures does not train again


def _record_failure(run: RunFolder, outcome: Outcome, error: str) -> None:
    """Write result.json without what the job filled in where that cannot be written: it may be what failed."""
    with suppress(OSError):  # a full disk has no room for the record either
        try:
            run.record(outcome, "failed", error)
        except (TypeError, ValueError, AttributeError):
            run.record(Outcome(objectives=outcome.objectives), "failed", error)


def remove_outputs(folder: Path, plan: Plan[Any]) -> None:
    """Remove what a run of the plan left in a folder, so that nothing of it is taken for the next one's."""
    for name in (*EVERY_RUN_WRITES, *plan.algorithm.uses.writes):
        remove_path(folder / name)


def tidy(folder: Path, plan: Plan[Any]) -> None:
    """Remove what a finished run needs no more, and what earlier attempts at it left when they were killed.

    Args:
        folder: of the run, held by this process.
        plan: the run.
    """
    for name in OF_THE_TRAINING:
        if name not in plan.algorithm.uses.writes:
            remove_path(folder / name)
    remove_unfinished(folder, {*EVERY_RUN_WRITES, *plan.algorithm.uses.writes})
    remove_unfinished(plan.runs, of="index.html.", age_s=A_PAGE_TAKES_S)  # which any process may be writing


def _check_finite(metrics: Metrics) -> None:
    """A diverged run is no result."""
    for name, record in metrics.items():
        for part, value in record.items():
            if isinstance(value, float) and not math.isfinite(value):
                raise ArithmeticError(f"the metric {name}.{part} is {value}: the run diverged")


def _without_nan(value: Any) -> Any:
    """The same record with null where a number is not finite, which JSON cannot say."""
    if isinstance(value, dict):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


class _JobLog(logging.FileHandler):
    def format(self, record: logging.LogRecord) -> str:
        """An error of somebody's library, or its traceback, may hold a key."""
        return masked(super().format(record))

    def handleError(self, record: logging.LogRecord) -> None:
        """A log that cannot be written is no reason for a traceback a line."""


@contextmanager
def _job_log(path: Path) -> Iterator[None]:
    try:
        handler = _JobLog(path, encoding="utf-8")
    except OSError as error:
        say(f"{path}: cannot be written ({error.strerror}); this run has no log")
        yield
        return
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    root = logging.getLogger()
    before = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    try:
        yield
    finally:
        root.removeHandler(handler)
        root.setLevel(before)
        with suppress(OSError):
            handler.close()


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None
