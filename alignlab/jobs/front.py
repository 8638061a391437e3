"""Collects runs into front.csv, front.png and a table; after a sweep, and on its own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignlab.config.schema import FrontConfig, RunConfig, ToyConfig
from alignlab.config.weights import SUM_TOLERANCE
from alignlab.errors import ConfigError
from alignlab.front.collect import FrontPoint, collect, find_runs
from alignlab.front.metrics import ExactCurve, exact_curve
from alignlab.front.report import write_front
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import quiet_libraries, say

CURVE_POINTS = 41
"""Weightings of the exact front's line, beside the trained ones."""


def run(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Collects the runs that the config names, or all MODPO and DPO runs of this model and dataset."""
    assert isinstance(config.algorithm, FrontConfig)
    roots = [Path(root) for root in config.algorithm.runs] or [
        Path(config.paths.runs) / name / config.model.name / config.dataset.name for name in ("modpo", "dpo")
    ]
    folders = [folder for root in roots if root.is_dir() for folder in find_runs(root)]
    if not folders:
        raise ConfigError(f"algorithm.runs={[str(root) for root in roots]}: no run found; train some first")
    outcome.artifacts |= present(config, folders, run.path)


def after_sweep(jobs: Sequence[tuple[RunConfig, Path]]) -> None:
    """The front of a sweep's runs, whatever became of them; a sweep of other jobs gets a table only."""
    folders = list(dict.fromkeys(folder for _, folder in jobs))
    config = jobs[0][0]
    if len(folders) < 2 or config.algorithm.name not in ("modpo", "dpo", "reward_model"):
        return
    name = hashlib.sha256("\n".join(map(str, folders)).encode()).hexdigest()[:8]
    target = Path(config.paths.runs) / "front" / config.model.name / config.dataset.name / f"sweep-{name}"
    quiet_libraries()
    try:
        present(config, folders, target)
    except (ConfigError, ValueError) as error:
        say(f"no front: {error}")


def present(config: RunConfig, folders: Sequence[Path], target: Path) -> dict[str, str]:
    """Prints the table and writes front.csv and front.png into `target`; returns these artifacts.

    Raises:
        ConfigError: if the runs cannot stand on one front; says which two and why.
    """
    try:
        collection = collect(folders)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    target.mkdir(parents=True, exist_ok=True)
    exact, at_reference = None, None
    try:
        if collection.points:
            exact, at_reference = exact_front(config, collection.points)
    except ValueError as error:
        say(f"no exact front: {error}")
    names = {"dataset": config.dataset.name, "model": config.model.name}
    return write_front(collection, target, exact=exact, reference=at_reference, **names)


def exact_front(config: RunConfig, points: Sequence[FrontPoint]) -> tuple[ExactCurve | None, tuple[float, ...] | None]:
    """The toy's exact front and the reference's own rewards; (None, None) where they cannot be known."""
    betas = {point.beta for point in points if point.beta is not None}
    golds = [str(objective.gold) for objective in config.dataset.objectives.values()]
    if not isinstance(config.dataset, ToyConfig) or len(betas) > 1 or list(points[0].axes) != golds:
        return None, None
    from alignlab.data.worlds import toy
    from alignlab.prerequisites.reference import reference
    from alignlab.prerequisites.toy_pairs import reference_samples

    beta = next(iter(betas), config.dataset.beta)
    rewards_PSM = reference_samples(config, reference(config), toy.prompts("test"))
    at_reference = tuple(rewards_PSM.mean(axis=(0, 1)).tolist())
    trained = {tuple(point.weights.values()) for point in points if point.weights}
    weights = sorted(trained | set(_line(trained)))
    try:
        return exact_curve(rewards_PSM, weights=weights, beta=beta, axes=points[0].axes), at_reference
    except ValueError as error:
        say(f"no exact front: {error} (dataset.exact_samples, algorithm.beta)")
        return None, at_reference


def _line(trained: set[tuple[float, ...]]) -> list[tuple[float, float]]:
    """Weightings between two objectives that make the exact front a line; none for more, or where w is no mixture."""
    if any(len(weights) != 2 or abs(sum(weights) - 1) > SUM_TOLERANCE for weights in trained):
        return []
    return [(w, 1 - w) for w in np.linspace(0, 1, CURVE_POINTS).round(6).tolist()]
