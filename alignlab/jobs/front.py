"""Collects runs into front.csv, front.png, front.html and a table; after a sweep, and on its own."""

import hashlib
import json
import shlex
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.config.hydra.command import commands_of
from alignlab.config.parts import ModelSource, RowSource
from alignlab.config.plan import Plan
from alignlab.config.schema import FrontConfig
from alignlab.config.weights import SUM_TOLERANCE
from alignlab.errors import ConfigError
from alignlab.front.collect import FrontPoint, collect
from alignlab.front.metrics import ExactCurve, exact_curve
from alignlab.front.page import Names, write_front_page
from alignlab.front.points import (
    evaluations_of,
    has_accuracies,
    has_scores,
    points_of,
    run_folders,
    scored_beside,
    scored_instead,
)
from alignlab.front.previewed import find_preview
from alignlab.front.report import write_front
from alignlab.io.atomic import remove_unfinished
from alignlab.pages.index import index_link, write_index
from alignlab.runs.folder import A_PAGE_TAKES_S, RunFolder
from alignlab.runs.policy import policy_adapter
from alignlab.runs.progress import quiet_libraries, say
from alignlab.runs.result import RESULT, TRACKER_ID, Outcome, finished_result, known_config

METHODS = (
    "modpo",
    "rebel",
    "grpo",
    "soup",
    "modpo_conditioned",
    "dpo",
    "dpo_lw",
    "raco",
    "safedpo",
    "best_of_n",
    "logit_mix",
)
"""Algorithms whose runs are points of a front."""

CURVE_POINTS = 41
"""Weightings of the exact front's line, beside the trained ones."""


def run(plan: Plan[FrontConfig], run: RunFolder, outcome: Outcome) -> None:
    """Collect the runs that the config names, or every method's runs of this model and dataset.

    Args: every job's, see `alignlab.jobs`.
    """
    roots, folders = folders_of(plan)
    if not folders:
        raise ConfigError(f"algorithm.runs={[str(root) for root in roots]}: no run found; train some first")
    outcome.artifacts |= present(plan.model, plan.rows, folders, run.path, root=plan.runs, targets=plan.target)
    write_index(plan.runs)


def folders_of(plan: Plan[Any]) -> tuple[list[Path], list[Path]]:
    """The roots that algorithm.runs names, or every method's of this model and data, and the folders of their points.

    Args:
        plan: whose algorithm has `runs`.
    """
    named = [Path(root) for root in plan.algorithm.runs]
    if named:
        return named, _all_scored(run_folders(named))
    model, data = plan.model.settings.name, plan.rows.settings.name
    roots = [plan.runs / name / model / data for name in METHODS]
    return roots, _scored_where_any_is(plan, run_folders(roots))


def _scored_where_any_is(plan: Plan[Any], folders: Sequence[Path]) -> list[Path]:
    """The folders by what their policies say, without those whose policy no scorer has judged, which are named."""
    evaluations = plan.runs / "evaluate" / plan.model.settings.name / plan.rows.settings.name
    found = scored_instead(folders, evaluations)
    if found == list(folders):
        return found
    left_out = [folder for folder in found if folder in folders and has_accuracies(folder)]
    for folder in left_out:
        say(f"left out: {folder}: not scored as the others are; its command with their scorers does it")
    return [folder for folder in found if folder not in left_out]


def _all_scored(folders: Sequence[Path]) -> list[Path]:
    """Named runs; where some of them have scores, the others by their evaluations with the same scorers.

    Raises:
        ConfigError: for a run without such an evaluation; the command that makes it is said before.
    """
    found = scored_beside(folders)
    ranked = [folder for folder in found if has_accuracies(folder)]
    scored = [folder for folder in found if has_scores(folder)]
    if ranked and scored:
        for folder in ranked:
            say(f"not scored: {folder}; {_scoring_command(folder, scored[0])}")  # too long for an error's line
        raise ConfigError(
            f"algorithm.runs: {ranked[0]} has accuracies alone, {scored[0]} has scores: they share no axes; score "
            "what is named above by its command, or name runs of one kind"
        )
    return found


def _scoring_command(folder: Path, scored: Path) -> str:
    """How a run's policy gets the scores that another run has.

    Args:
        folder: of the run without scores.
        scored: of the other one.
    """
    record, other, evaluations = known_config(folder), known_config(scored), evaluations_of(folder)
    adapter = policy_adapter(folder, json.loads((folder / RESULT).read_text(encoding="utf-8")))
    if adapter is None or evaluations is None or not (record and other):
        return "score what its policy says with algorithm=evaluate and the other's scorers"
    algorithm = {"name": "evaluate", "adapter": str(adapter), "beta": record["dataset"].get("beta")}
    wanted = {**record, "algorithm": algorithm, "scorers": other["scorers"], "generator": other["generator"]}
    (command,) = commands_of([wanted])
    if command is None:
        return f"score what its policy says with algorithm=evaluate algorithm.adapter={adapter} and the other's scorers"
    return f"this scores its policy: {command} {shlex.quote(f'paths.runs={evaluations.parents[2]}')}"


def after_sweep(jobs: Sequence[tuple[Plan[Any], Path]]) -> None:
    """The front of a sweep's runs, whatever became of them."""
    folders = list(dict.fromkeys(each for plan, folder in jobs for each in _points_of(plan, folder)))
    if len(folders) < 2:
        return
    plan, target = jobs[0][0], _sweep_folder(jobs)
    quiet_libraries()
    try:
        present(plan.model, plan.rows, folders, target, root=plan.runs, targets=plan.target)
        write_index(plan.runs)
    except (ConfigError, ValueError) as error:
        say(f"no front: {error}")
        return
    if any((folder / TRACKER_ID).exists() for _, folder in jobs) and (target / "front.json").exists():
        from alignlab.runs.publishing import publish_front  # late: it imports transformers

        publish_front(replace(plan.recipe.tracker, name="front"), target)


def so_far(jobs: Sequence[tuple[Plan[Any], Path]]) -> Path | None:
    """Write front.html of a sweep that is still at work, without the exact front; None while there is no point yet."""
    plan, target = jobs[0][0], _sweep_folder(jobs)
    done = [folder for each, job in jobs if finished_result(job) for folder in _points_of(each, job)]
    try:
        collection = collect([folder for folder in dict.fromkeys(done) if finished_result(folder)])
    except ValueError:
        return None  # what cannot share a front is said at the sweep's end
    if not collection.points:
        return None
    target.mkdir(parents=True, exist_ok=True)
    ended = sum(finished_result(job) is not None for _, job in jobs)
    return write_front_page(
        collection,
        target / "front.html",
        names=Names(plan.rows.settings.name, plan.model.settings.name),
        exact=None,
        reference=None,
        notes=[f"The sweep is still at work: {ended} of {len(jobs)} runs are done. Reload this page for more."],
        links=index_link(plan.runs, target),
    )


def _sweep_folder(jobs: Sequence[tuple[Plan[Any], Path]]) -> Path:
    """Where a sweep's front goes, whatever becomes of its runs."""
    plan = jobs[0][0]
    folders = [folder for _, folder in jobs] + ([plan.evaluation(None).folder] if plan.scorers else [])
    name = hashlib.sha256("\n".join(map(str, dict.fromkeys(folders))).encode()).hexdigest()[:8]
    return plan.runs / "front" / plan.model.settings.name / plan.rows.settings.name / f"sweep-{name}"


def _points_of(plan: Plan[Any], folder: Path) -> list[Path]:
    """The folders that a job of a sweep gives the front: its own, or its policy's evaluation, and the reference's."""
    if not plan.scorers:
        return points_of(folder)
    reference = plan.evaluation(None).folder
    if plan.algorithm.uses.after_run or not plan.algorithm.uses.trains:
        return [*points_of(folder), reference]
    adapter = folder / "adapter"
    return [plan.evaluation(adapter).folder if adapter.is_dir() else folder, reference]


def present(
    model: ModelSource,
    rows: RowSource,
    folders: Sequence[Path],
    target: Path,
    *,
    root: Path,
    targets: Mapping[str, float],
) -> dict[str, str]:
    """Print the table and write front.csv, front.png and front.html into `target`; return these artifacts.

    Args:
        model: the reference.
        rows: the data.
        folders: of the runs.
        target: where the front is written.
        root: of the runs; the page links to its index.html where the front lies below it.
        targets: objective -> the mean that must at least be reached.

    Raises:
        ConfigError: if the runs cannot stand on one front; says which two and why.
    """
    try:
        collection = collect(folders)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    target.mkdir(parents=True, exist_ok=True)
    remove_unfinished(target, age_s=A_PAGE_TAKES_S)
    exact, at_reference = None, None
    try:
        if collection.points:
            exact, at_reference = exact_front(model, rows, collection.points)
    except ValueError as error:
        say(f"no exact front: {error}")
    names = {"dataset": rows.settings.name, "model": model.settings.name}
    previews = root / "preview" / model.settings.name / rows.settings.name
    return write_front(
        collection,
        target,
        exact=exact,
        reference=at_reference,
        preview=find_preview(previews, collection) if collection.points else None,
        links=index_link(root, target),
        targets=targets,
        **names,
    )


def exact_front(
    model: ModelSource, rows: RowSource, points: Sequence[FrontPoint]
) -> tuple[ExactCurve | None, tuple[float, ...] | None]:
    """The toy's exact front and the reference's own rewards; (None, None) where they cannot be known.

    Args:
        model: the reference.
        rows: the data.
        points: of the front.
    """
    betas = {point.beta for point in points if point.beta is not None}
    golds = [str(objective.gold) for objective in rows.settings.objectives.values()]
    normalised = any((point.recipe or {}).get("normalised") for point in points)  # w then weighs other units
    if rows.toy is None or len(betas) > 1 or normalised or list(points[0].axes) != golds:
        return None, None
    from alignlab.data.worlds import toy
    from alignlab.prerequisites.models import reference
    from alignlab.prerequisites.toy_pairs import reference_samples

    beta = next(iter(betas), rows.settings.beta)
    rewards_PSM = reference_samples(rows.toy, reference(model), toy.prompts("test"), cache=rows.cache)
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
