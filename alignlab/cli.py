"""The entry point: compose, check everything, dispatch to Hydra, draw the front after a sweep. Imports no torch."""

import importlib
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import hydra
from hydra._internal.utils import get_args_parser
from omegaconf import DictConfig

from alignlab.config.compose import compose_jobs, composing, config_root, register, run_config
from alignlab.config.errors import EXIT_BAD_INPUT, EXIT_INTERRUPTED, EXIT_TERMINATED, ConfigError, Terminated
from alignlab.config.messages import explain
from alignlab.config.overrides import admit_new_rewards
from alignlab.config.schema import RunConfig

register()


@hydra.main(  # type: ignore[untyped-decorator]
    config_path=str(config_root("conf")), config_name="config", version_base="1.3"
)
def run_job(composed: DictConfig) -> None:
    """One job, here or in a launcher's worker. Raises JobFailed after the run folder has recorded the failure."""
    from hydra.core.hydra_config import HydraConfig

    from alignlab.jobs.run import run_in_folder
    from alignlab.runs.progress import hide_bars

    if not HydraConfig.get().launcher._target_.endswith("BasicLauncher"):
        hide_bars()
    run_in_folder(run_config(composed), Path(HydraConfig.get().runtime.output_dir))


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit code: 0 done, 1 a job failed, 2 bad input, 130 or 143 stopped."""
    given = admit_new_rewards(sys.argv[1:] if argv is None else argv)
    arguments = get_args_parser().parse_args(given)
    asks_hydra = arguments.help or arguments.hydra_help or arguments.shell_completion
    if asks_hydra or arguments.info:
        return _hydra(given)
    try:
        jobs, is_sweep = _checked_jobs(arguments)
    except ConfigError as error:
        print(error, file=sys.stderr)
        return EXIT_BAD_INPUT
    if arguments.cfg or arguments.resolve or arguments.package:
        return _hydra(given)
    code = _hydra(given)
    stopped = code in (EXIT_INTERRUPTED, EXIT_TERMINATED)
    return _after_sweep(jobs, code) if is_sweep and not stopped else code


def _checked_jobs(arguments: Any) -> tuple[list[tuple[RunConfig, Path]], bool]:
    """Every job's config and folder, after all the checks that need no model."""
    from alignlab.jobs.preflight import check

    try:
        with composing():
            composed, is_sweep = compose_jobs(
                arguments.config_name or "config", arguments.overrides, multirun=arguments.multirun
            )
            jobs = []
            for job in composed:
                config = run_config(job)
                check(config)
                sweep = Path(job.hydra.sweep.dir) / job.hydra.sweep.subdir
                jobs.append((config, sweep if is_sweep else Path(job.hydra.run.dir)))
            return jobs, is_sweep
    except Exception as error:
        raise explain(error, arguments.overrides) from None


def _hydra(argv: Sequence[str]) -> int:
    """Hands over to Hydra; its own errors end as exit codes."""
    sys.argv = [sys.argv[0], *argv]
    try:
        run_job()
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else 1
    except KeyboardInterrupt as stopped:
        return EXIT_TERMINATED if isinstance(stopped, Terminated) else EXIT_INTERRUPTED
    return 0


def _after_sweep(jobs: list[tuple[RunConfig, Path]], code: int) -> int:
    """Draws the front of a sweep from whatever its jobs left, also when some failed."""
    front = importlib.import_module("alignlab.jobs.front")
    front.after_sweep(jobs)
    return code
