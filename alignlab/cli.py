"""The entry point: compose, check everything, dispatch to Hydra, draw the front after a sweep. Imports no torch."""

import importlib
import signal
import sys
from argparse import Namespace
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import hydra
from hydra.types import RunMode
from omegaconf import DictConfig

from alignlab import __version__
from alignlab.config.effects import without_effect
from alignlab.config.fingerprints import check_recorded
from alignlab.config.hydra.compose import composing, is_sweep, read_command, register, run_config
from alignlab.config.hydra.endpoints import check_endpoints
from alignlab.config.hydra.messages import explain
from alignlab.config.hydra.overrides import (
    admit_new_keys,
    check_arguments,
    flags_last,
    one_run,
    parse_flags,
    quote_paths,
)
from alignlab.config.plan import Plan, plan_of
from alignlab.config.roots import config_root
from alignlab.errors import (
    EXIT_BAD_INPUT,
    EXIT_FAILED,
    EXIT_INTERRUPTED,
    ConfigError,
    JobFailed,
    OnlyPlanned,
    Terminated,
)
from alignlab.io.text import printable_lines
from alignlab.runs.result import RunResult
from alignlab.runs.sweep import Timed, sweep

register()
DOCTOR = ("--doctor", "algorithm=doctor")
"""Beside the run at hand, or alone for the default one."""


@hydra.main(  # type: ignore[untyped-decorator]
    config_path=str(config_root("conf")), config_name="config", version_base="1.3"
)
def run_job(composed: DictConfig) -> None:
    """One job, here or in a launcher's worker. A sweep's job raises, so that the others go on; a single one exits."""
    from hydra.core.hydra_config import HydraConfig

    from alignlab.runs.activity import at_work
    from alignlab.runs.progress import hide_bars
    from alignlab.runs.runner import run_and_score
    from alignlab.runs.signals import in_worker
    from alignlab.runs.summary import print_summary

    launcher = HydraConfig.get().launcher._target_
    launched = is_launched(launcher)
    if launched:
        hide_bars()
    try:
        folder = Path(HydraConfig.get().runtime.output_dir)
        in_one = in_worker() if launcher.endswith("JoblibLauncher") else nullcontext()
        with in_one, at_work(folder, launched=launched):
            plan, timed = plan_of(run_config(composed)), Timed(folder)
            result, folder = run_and_score(plan, folder)
            _list_page(plan, result, folder)
            timed.end()
        if HydraConfig.get().mode == RunMode.RUN:
            print_summary(result, folder)
    except OnlyPlanned as planned:
        print(planned)
    except (ConfigError, JobFailed) as error:
        if HydraConfig.get().mode == RunMode.MULTIRUN:
            raise
        print(printable_lines(str(error)), file=sys.stderr)
        sys.exit(EXIT_BAD_INPUT if isinstance(error, ConfigError) else EXIT_FAILED)


def is_launched(launcher: str) -> bool:
    """Whether a launcher runs a sweep's jobs in other processes."""
    return not launcher.endswith("BasicLauncher")


def _list_page(plan: Plan[Any], result: RunResult, folder: Path) -> None:
    """Bring the list of all runs up to date where a run has written a page, which links to it."""
    from alignlab.pages.index import index_link, write_index

    if "page" in result.artifacts and index_link(plan.runs, folder):
        write_index(plan.runs)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 1 a job failed, 2 bad input, 130 or 143 stopped."""
    given = list(sys.argv[1:] if argv is None else argv)
    if "--version" in given:
        print(f"alignlab {__version__}")
        return 0
    doctor = not {*DOCTOR}.isdisjoint(given)
    given = [argument for argument in given if argument not in DOCTOR]
    try:
        check_arguments(given)
        given = quote_paths(admit_new_keys(flags_last(given)))
        flags = parse_flags(given)
        if flags.hydra_help or flags.shell_completion or flags.info:
            return _hydra(given)
        if argv is None and (flags.help or flags.cfg):
            _end_quietly_in_a_pipe()
        if flags.help:
            print(_help(flags))
            return 0
        with _signs(not flags.cfg, anew=True):
            checked = _check(flags)
    except ConfigError as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return EXIT_BAD_INPUT
    if doctor:
        return _examine(checked)
    if flags.cfg:
        return _hydra(one_run(given, flags.overrides, checked.batch[0]))
    arguments = flags_last([*given, *checked.added])
    if checked.nodes == 1:
        return _run(checked, flags, arguments)
    try:
        return _on_nodes(checked, flags, arguments)
    except (ConfigError, JobFailed) as error:
        print(printable_lines(str(error)), file=sys.stderr)
        return EXIT_BAD_INPUT if isinstance(error, ConfigError) else EXIT_FAILED
    except KeyboardInterrupt as stopped:
        return _code_of(stopped)


def _run(checked: "_Checked", flags: Namespace, arguments: Sequence[str]) -> int:
    """Run every job, and put together what a sweep's left."""
    sweep.begin(checked.jobs if checked.is_sweep else [])
    own = not (checked.is_sweep and is_launched(checked.launcher))  # launched runs have lines of their own
    with _watched(checked) if checked.is_sweep else nullcontext(), _signs(own):
        code = _hydra(arguments, [folder for _, folder in checked.jobs])
    if not checked.is_sweep or code > 128:  # stopped by a signal
        return code
    with _signs(True, stage="results of the sweep"):
        return _after_sweep(checked, flags, code)


@contextmanager
def _signs(shown: bool, *, anew: bool = False, stage: str | None = None) -> Iterator[None]:
    """Signs of life of the command itself, before, between and after its runs.

    Args:
        shown: whether there are to be any.
        anew: a command begins, and silence counts from now on.
        stage: what it is at.
    """
    if not shown:
        yield
        return
    from alignlab.runs.activity import activity, open_in
    from alignlab.runs.progress import begin_silence, signs_of_life  # late: it imports rich

    if anew:
        begin_silence()
    with signs_of_life("command"), open_in(activity.stages, stage) if stage else nullcontext():
        yield


def _on_nodes(checked: "_Checked", flags: Namespace, arguments: Sequence[str]) -> int:
    """Run as node 0 of several, or join it."""
    from alignlab.runs.nodes import digest_of, end, leading
    from alignlab.runs.place import place_of
    from alignlab.runs.secret import secret_in

    place = place_of(checked.nodes)
    secret = secret_in(checked.jobs[0][0].runs.absolute())
    run = digest_of([(str(folder.absolute()), plan.record) for plan, folder in checked.jobs])
    if place.rank:
        return int(importlib.import_module("alignlab.training.follow").follow(place, run, secret))
    with leading(place, run, secret):
        code = _run(checked, flags, arguments)
        end(code)
    return code


def _watched(checked: "_Checked") -> AbstractContextManager[None]:
    """Shows a sweep while it runs."""
    from alignlab.runs.overview import Overview, names_of
    from alignlab.runs.watch import watched

    return watched(
        Overview(checked.jobs, names_of(checked.batch, checked.jobs)),
        launched=is_launched(checked.launcher),
        page=sweep.write_page,
    )


def _examine(checked: "_Checked") -> int:
    """What the machine lacks for a command line whose settings are right; 2 where the run would fail."""
    from alignlab.checks.doctor import examine

    failing = examine(*checked.jobs[0])
    if failing:
        print(f"{failing} of these would make the run fail", file=sys.stderr)
    return EXIT_BAD_INPUT if failing else 0


def _help(flags: Namespace) -> str:
    from alignlab.config.hydra.help import help_text

    name = flags.config_name or "config"
    with composing(flags.config_dir):
        try:
            return help_text(name, [override for override in flags.overrides if not is_sweep(override)])
        except Exception as error:
            raise explain(error, name, flags.overrides) from None


@dataclass(frozen=True)
class _Checked:
    """Every job of a command line with its folder, after all the checks that need no model."""

    jobs: list[tuple[Plan[Any], Path]]
    batch: list[list[str]]
    """The overrides of every job."""
    is_sweep: bool
    added: list[str]
    """Overrides for Hydra beside those given."""
    launcher: str
    """Class that starts a sweep's jobs."""
    nodes: int
    """hardware.nodes, the same for every job."""


def _check(flags: Namespace) -> _Checked:
    """Checks every job before one starts, and warns once of each setting that has no effect."""
    from alignlab.checks.machine import check_device, check_key, check_launcher, check_nodes, check_writable
    from alignlab.checks.preflight import check

    name = flags.config_name or "config"
    with composing(flags.config_dir):
        try:
            command = read_command(name, flags.overrides, multirun=flags.multirun)
            is_sweep, launcher = command.batch is not None, str(command.probe.hydra.launcher._target_)
            if is_sweep and not flags.cfg:
                check_launcher(launcher)
            configs, jobs, confirmed = [], [], set()
            for job in command.jobs():
                config = run_config(job)
                confirmed |= {*check_endpoints(config, flags.overrides)}
                plan = plan_of(config)
                check_recorded(plan.files)
                folder = Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir if is_sweep else Path(job.hydra.run.dir)
                check(plan)
                check_writable(folder)
                if command.runs_here:
                    check_device(plan)
                    check_key(plan)
                configs.append(config)
                jobs.append((plan, folder))
            if not flags.cfg:
                check_nodes([plan.recipe.hardware.nodes for plan, _ in jobs], launcher if is_sweep else None)
        except Exception as error:
            raise explain(error, name, flags.overrides) from None
    for line in sorted(confirmed):
        print(line, file=sys.stderr)
    for line in without_effect(configs, flags.overrides, is_sweep=is_sweep):
        print(f"warning: {line}", file=sys.stderr)
    added = command.overrides[len(flags.overrides) :]
    batch, nodes = command.batch or [command.overrides], jobs[0][0].recipe.hardware.nodes
    return _Checked(jobs, batch, is_sweep, added, launcher, nodes)


def _end_quietly_in_a_pipe() -> None:
    """`--help | head` ends as other tools do, without a BrokenPipeError."""
    if hasattr(signal, "SIGPIPE"):
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)


def _hydra(argv: Sequence[str], folders: Sequence[Path] = ()) -> int:
    """Hands over to Hydra; its own errors end as exit codes.

    Args:
        argv: the arguments.
        folders: of the runs.
    """
    from alignlab.runs.folder import is_in_use
    from alignlab.runs.signals import passing_on

    sys.argv = [sys.argv[0], *argv]
    try:
        with passing_on(lambda: any(map(is_in_use, folders))):
            run_job()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else EXIT_FAILED if end.code else 0
    except KeyboardInterrupt as stopped:
        return _code_of(stopped)
    return 0


def _code_of(stopped: KeyboardInterrupt) -> int:
    return 128 + stopped.number if isinstance(stopped, Terminated) else EXIT_INTERRUPTED


def _after_sweep(checked: _Checked, flags: Namespace, code: int) -> int:
    """Puts together what a sweep's jobs left, also when some failed: a front, curves, or one set of all shards."""
    from alignlab.runs.summary import print_failures

    module = checked.jobs[0][0].algorithm.uses.after_sweep
    if module is not None:
        try:
            importlib.import_module(module).after_sweep(checked.jobs)
        except ConfigError as error:  # the runs are there; what would join them is not
            print(printable_lines(str(error)), file=sys.stderr)
            if not code:
                return EXIT_BAD_INPUT
    if code:
        named = [("--config-name", flags.config_name), ("--config-dir", flags.config_dir)]
        given = [part for flag, value in named if value for part in (flag, str(value))]
        print_failures([(folder, job) for (_, folder), job in zip(checked.jobs, checked.batch, strict=True)], given)
    return code
