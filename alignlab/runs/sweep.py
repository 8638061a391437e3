"""How far a sweep of this process is: a line after every run that was not done before and, for a front, its page."""

import importlib
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from alignlab.config.plan import Plan
from alignlab.runs.result import finished_result

FRONT = "alignlab.jobs.front"
"""The module that puts a sweep over w together; it has `so_far` beside `after_sweep`."""
PAGE_SHARE = 0.02
"""Of a sweep's time that bringing its page up to date may take: short runs are not slowed by a long page."""


@dataclass
class Sweep:
    """The jobs of a sweep that this process runs one after the other; empty where there is none."""

    jobs: Sequence[tuple[Plan[Any], Path]] = ()
    ran: list[float] = field(default_factory=list)
    """Seconds that each run took which was not done before."""
    page_due: float = 0.0
    """When the page may be written again, by the monotonic clock."""
    met: set[Path] = field(default_factory=set)
    """Folders after whose run all is done."""

    def begin(self, jobs: Sequence[tuple[Plan[Any], Path]]) -> None:
        """Forget an earlier sweep."""
        self.jobs, self.ran, self.page_due, self.met = jobs, [], 0.0, set()

    def after_run(self, folder: Path, work: Callable[[], None]) -> None:
        """Do what comes after a run, once in a sweep: several w of it may share the run.

        Args:
            folder: of the run.
            work: what is done.
        """
        if folder not in self.met:
            work()
        if self.jobs:
            self.met.add(folder)

    def ended(self, seconds: float) -> None:
        """Say how far the sweep is, and bring its page up to date if due; nothing once all runs have ended well."""
        self.ran.append(seconds)
        line = self.line()
        if line is None:
            return
        from alignlab.runs.progress import say_progress  # late: `--help` needs no console

        page, begun = None, time.monotonic()
        if begun >= self.page_due:
            page = self.write_page()
            self.page_due = time.monotonic() + (time.monotonic() - begun) / PAGE_SHARE
        say_progress(line if page is None else f"{line}; so far: {page}")

    def write_page(self) -> Path | None:
        """Rewrite the front's page from the runs that are done; None where there is no front, or no point yet."""
        module = self.jobs[0][0].algorithm.uses.after_sweep
        page: Path | None = importlib.import_module(module).so_far(self.jobs) if module == FRONT else None
        return page

    def line(self) -> str | None:
        """`sweep: 2 of 5 runs, 40 s each, 2:00 left`; None where nothing is left."""
        done = sum(finished_result(folder) is not None for _, folder in self.jobs)
        left = len(self.jobs) - done
        if not left:
            return None
        from alignlab.runs.progress import clock

        each = sum(self.ran) / len(self.ran)
        return f"sweep: {done} of {len(self.jobs)} runs, {each:.3g} s each, {clock(each * left)} left"


sweep = Sweep()


class Timed:
    """Seconds of one run."""

    def __init__(self, folder: Path) -> None:
        self.was_done, self._start = finished_result(folder) is not None, time.monotonic()

    def end(self) -> None:
        """Count the run towards its sweep, unless it was done before."""
        if sweep.jobs and not self.was_done:
            sweep.ended(time.monotonic() - self._start)
