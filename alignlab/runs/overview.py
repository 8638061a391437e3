"""How far the runs of a sweep are, wherever they run: one state a run, read from this process and from run folders."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.config.plan import Plan
from alignlab.io.text import printable
from alignlab.runs.activity import Snapshot, activity, finite, told_in
from alignlab.runs.progress import clock
from alignlab.runs.result import RESULT, RunResult, read_result

MOST_NAMED = 4
"""Runs at work that one line names."""
LONGEST_NAME = 60
ENDED = ("done", "failed", "interrupted")


@dataclass(frozen=True)
class RunState:
    """A run of a sweep: waiting, running, done, failed or interrupted."""

    name: str
    status: str
    now: Snapshot = field(default_factory=Snapshot)
    seconds: float | None = None
    """That an ended run took."""
    metrics: dict[str, float] = field(default_factory=dict)
    """The latest of a training, or the mean on each axis of a run that is done."""

    def line(self) -> str:
        """`w=0.5 training 12 of 60, 2:10 left`, for text."""
        counted = f" {self.now.done} of {self.now.total}" if self.now.total else ""
        left = "" if self.now.left is None else f", {clock(self.now.left)} left"
        return printable(f"{self.name} {self.now.stage or self.status}{counted}{left}")


def names_of(batch: Sequence[Sequence[str]], jobs: Sequence[tuple[Plan[Any], Path]]) -> list[str]:
    """What tells each job apart: the overrides that not all of them share; its folder's name where none does.

    Args:
        batch: overrides of every job.
        jobs: plan and folder of every job.
    """
    common = set.intersection(*map(set, batch)) if batch else set()
    found = []
    for overrides, (plan, folder) in zip(batch, jobs, strict=True):
        own = " ".join(one for one in overrides if one not in common) or f"{plan.algorithm.name} {folder.name}"
        found.append(own if len(own) <= LONGEST_NAME else f"{own[: LONGEST_NAME - 1]}…")
    return found


class Overview:
    """The states of a sweep's runs; what an earlier sweep left does not count as an end of this one's."""

    def __init__(self, jobs: Sequence[tuple[Plan[Any], Path]], names: Sequence[str]) -> None:
        self.jobs = [(plan, folder.absolute()) for plan, folder in jobs]
        self.names = names
        self.began = time.time()
        self._ended: dict[Path, RunState] = {}
        self._done_before = {folder for plan, folder in self.jobs if not plan.force and _is_done(folder)}

    def states(self) -> list[RunState]:
        """One a run, in the sweep's order."""
        return [self._state(plan, folder, name) for (plan, folder), name in zip(self.jobs, self.names, strict=True)]

    def summary(self, states: Sequence[RunState]) -> str:
        """`1 of 3 runs done, 1 failed, 0:40 so far, 1:20 left`, worked out from the runs that ended in this sweep."""
        counts = {status: sum(state.status == status for state in states) for status in ENDED}
        parts = [f"{counts['done']} of {len(states)} runs done"]
        parts += [f"{counts[status]} {status}" for status in ENDED[1:] if counts[status]]
        passed = time.time() - self.began
        parts.append(f"{clock(passed)} so far")
        ended, left = sum(counts.values()), len(states) - sum(counts.values())
        here = ended - len(self._done_before)
        if here > 0 and left:
            parts.append(f"{clock(passed / here * left)} left")
        return ", ".join(parts)

    def line(self) -> str | None:
        """`sweep: 1 of 3 runs done, 0:40 so far; w=0.5 training 12 of 60, 2:10 left`; None once all have ended."""
        states = self.states()
        at_work = [state.line() for state in states if state.status == "running"]
        if all(state.status in ENDED for state in states):
            return None
        more = [f"and {len(at_work) - MOST_NAMED} more"] if len(at_work) > MOST_NAMED else []
        return "; ".join([f"sweep: {self.summary(states)}", *at_work[:MOST_NAMED], *more])

    def _state(self, plan: Plan[Any], folder: Path, name: str) -> RunState:
        told = activity.snapshot() if activity.folder == folder else told_in(folder, since=self.began)
        if told is not None and told.error is None:
            self._ended.pop(folder, None)
            return RunState(name, "running", told, metrics=told.metrics)
        if folder not in self._ended:
            error = activity.errors.get(folder) if told is None else told.error
            state = self._end(plan, folder, name, error)
            if state is None:
                return RunState(name, "waiting")
            self._ended[folder] = state
        return self._ended[folder]

    def _end(self, plan: Plan[Any], folder: Path, name: str, error: str | None) -> RunState | None:
        """The state of a run that has ended in this sweep, or was done before it; None of one that has not begun."""
        try:
            is_earlier = (folder / RESULT).stat().st_mtime < self.began and folder not in self._done_before
        except OSError:
            is_earlier = True
        result = None if is_earlier else read_result(folder)
        if result is None or (error is not None and result.status == "done"):  # then what came after the run failed
            return None if error is None else RunState(name, "failed", Snapshot(error=error))
        metrics = _axes_of(plan, folder, result) if result.status == "done" else {}
        return RunState(name, result.status, Snapshot(error=result.error), result.seconds.get("total"), metrics)


def _is_done(folder: Path) -> bool:
    result = read_result(folder)
    return result is not None and result.status == "done"


def _axes_of(plan: Plan[Any], folder: Path, result: RunResult) -> dict[str, float]:
    """The mean on each axis, of the evaluation where scorers come after the run; empty where there is none."""
    if plan.scorers and plan.algorithm.uses.trains and "adapter" in result.artifacts:
        evaluated = read_result(plan.evaluation(folder / result.artifacts["adapter"]).folder)
        result = result if evaluated is None else evaluated
    return finite({name: result.metrics.get(axis, {}).get("mean") for name, axis in result.axes.items()})
