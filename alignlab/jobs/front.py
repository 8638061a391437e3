"""Collects runs into front.csv, front.png and a table; after a sweep, and on its own."""

import hashlib
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from alignlab.config.errors import ConfigError
from alignlab.config.schema import FrontConfig, RunConfig, ToyConfig
from alignlab.front.collect import Collection, collect, find_runs
from alignlab.front.metrics import ExactCurve, exact_curve
from alignlab.front.picture import draw_front
from alignlab.front.table import front_table, write_csv
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import console, quiet_libraries, say

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
    try:
        exact, at_reference = exact_front(config, collection)
    except ValueError as error:
        say(f"no exact front: {error}")
        exact, at_reference = None, None
    console.print(front_table(collection, exact))
    write_csv(collection, target / "front.csv")
    artifacts = {"csv": "front.csv"}
    say(f"table:   {target / 'front.csv'}")
    if collection.points and len(collection.axes) > 1:
        draw_front(
            collection.points,
            path=target / "front.png",
            exact=exact,
            reference=at_reference,
            title=f"{config.dataset.name}: what safety costs in helpfulness ({config.model.name})",
        )
        artifacts["picture"] = "front.png"
        say(f"picture: {target / 'front.png'}")
    return artifacts


def exact_front(config: RunConfig, collection: Collection) -> tuple[ExactCurve | None, tuple[float, ...] | None]:
    """The toy's exact front and the reference's own rewards; (None, None) where they cannot be known."""
    betas = {point.variant for point in collection.points}
    if not isinstance(config.dataset, ToyConfig) or len(betas) != 1 or len(collection.axes) != 2:
        return None, None
    from alignlab.data import toy
    from alignlab.jobs.prerequisites import reference
    from alignlab.jobs.toy_pairs import reference_samples

    (variant,) = betas
    beta = float(str(variant).partition("=")[2] or config.dataset.beta)
    rewards_PSM = reference_samples(config, reference(config), toy.prompts("test"))
    trained = [point.first_weight for point in collection.points if point.first_weight is not None]
    grid = sorted({*np.linspace(0, 1, CURVE_POINTS).round(6).tolist(), *trained})
    at_reference = tuple(rewards_PSM.mean(axis=(0, 1)).tolist())
    try:
        weights = np.array([[w, 1 - w] for w in grid])
        return exact_curve(rewards_PSM, weights=weights, beta=beta, axes=collection.axes), at_reference
    except ValueError as error:
        say(f"no exact front: {error} (dataset.exact_samples, algorithm.beta)")
        return None, at_reference
