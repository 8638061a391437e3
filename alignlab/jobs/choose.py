"""Pick the adapter of a finished front that meets the targets, judge it on other prompts, and write it."""

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.config.objectives import Objectives, check_targets
from alignlab.config.plan import Plan
from alignlab.config.schema import ChooseConfig
from alignlab.errors import ConfigError
from alignlab.front.choice import (
    CHANCE_IS,
    Candidate,
    Choice,
    as_record,
    between,
    choose,
    halves,
    nearest_miss,
    verdict,
)
from alignlab.front.collect import REFERENCE, RESULT, FrontPoint, collect
from alignlab.front.points import POINTS
from alignlab.front.prompts import PromptScores, Scores, prompt_scores
from alignlab.front.series import weight_label
from alignlab.front.which_w import Line
from alignlab.io.atomic import new_folder, write_json
from alignlab.jobs.export import export
from alignlab.jobs.front import folders_of
from alignlab.models.cards import read_card, require_as_saved
from alignlab.models.saved_adapter import adapter_id, conditioned_card
from alignlab.runs.folder import RunFolder
from alignlab.runs.policy import maker_of, policy_adapter
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import Interval

CHOICE = "choice.json"
FEWEST_PROMPTS = 4


def run(plan: Plan[ChooseConfig], run: RunFolder, outcome: Outcome) -> None:
    """Choose on the validation half, judge on the test half, write the adapter and choice.json.

    Args: every job's, see `alignlab.jobs`.
    """
    roots, folders = folders_of(plan)
    points = _points(roots, folders)
    axes, objectives = points[0].axes, points[0].objectives
    check_targets(plan.target, objectives)
    axis_of = dict(zip(objectives, range(len(axes)), strict=True))
    targets = {axis_of[name]: value for name, value in plan.target.items()}
    candidates, prompts = _candidates(points, roots)
    found = choose(candidates, prompts, targets, min_chance=plan.algorithm.min_chance)
    if found is None:
        raise ConfigError(_none_meets(candidates, prompts, plan, targets))
    chosen = candidates[found.index]
    _write_adapter(chosen, run.path / "adapter")
    _record(outcome, chosen, found, axes)
    record = _choice(candidates, prompts, found, axes) | {
        "target": plan.target,
        "min_chance": plan.algorithm.min_chance,
    }
    write_json(run.path / CHOICE, {**record, "from": os.path.relpath(chosen.adapter, run.path)})
    outcome.artifacts |= {"adapter": "adapter", "choice": CHOICE}
    for line in _sentences(candidates, prompts, found, plan.target, axes):
        say(line)
    say(f"adapter: {run.path / 'adapter'}")


def _points(roots: Sequence[Path], folders: Sequence[Path]) -> list[FrontPoint]:
    """The policies with weights in the folders of runs below the roots.

    Raises:
        ConfigError: if there are none, or they cannot stand on one front.
    """
    try:
        collection = collect(folders)
    except ValueError as error:
        raise ConfigError(str(error)) from None
    for failure in collection.failures:
        say(f"left out, {failure.status}: {failure.folder}: {failure.error}")
    found = [point for point in collection.points if point.weights and point.algorithm != REFERENCE]
    if not found:
        shown = [str(root) for root in roots]
        raise ConfigError(
            f"algorithm.runs={shown}: no finished policy found; train some first, or name a front's folder"
        )
    return found


def _candidates(points: Sequence[FrontPoint], roots: Sequence[Path]) -> tuple[list[Candidate], list[str]]:
    """The policies that have an adapter and scores by prompt, and the prompts that all of them have.

    Args:
        points: the front.
        roots: for the message.

    Raises:
        ConfigError: if no policy has both, or they share too few prompts.
    """
    axes = points[0].axes
    adapters = [(point, _adapter_of(point.folder)) for point in points]
    with_adapter = [(point, adapter) for point, adapter in adapters if adapter is not None]
    known = [(point, adapter, prompt_scores(point.folder, axes)) for point, adapter in with_adapter]
    usable = [(point, adapter, scores) for point, adapter, scores in known if scores is not None]
    left_out = {
        "without an adapter": [point for point, adapter in adapters if adapter is None],
        "without scores by prompt": [point for point, _, scores in known if scores is None],
    }
    for why, some in left_out.items():
        for point in some:
            say(f"left out, {why}: {point.folder}")
    if not usable:
        what = "no policy has an adapter and scores of what it says by prompt"
        said = ", ".join(f"{len(some)} {why}" for why, some in left_out.items() if some)
        raise ConfigError(
            f"algorithm.runs={[str(root) for root in roots]}: {what} ({said}); evaluate with scorers first"
        )
    prompts = sorted(set.intersection(*(set(scores.prompts) for _, _, scores in usable)))
    if len(prompts) < FEWEST_PROMPTS:
        raise ConfigError(
            f"algorithm.runs: the policies share {len(prompts)} prompts, must be at least {FEWEST_PROMPTS}"
        )
    is_share = [all(scores.is_share[axis] for _, _, scores in usable) for axis in range(len(axes))]
    found = [_candidate(point, adapter, scores.on(prompts), is_share) for point, adapter, scores in usable]
    conditioned: dict[Path, list[Candidate]] = {}
    for one in found:
        home = maker_of(one.adapter, POINTS)
        if home is not None:
            conditioned.setdefault(home, []).append(one)
    for home, own in conditioned.items():
        found += _solved(home, own)
    return found, prompts


def _candidate(point: FrontPoint, adapter: Path, scores: PromptScores, is_share: Sequence[bool]) -> Candidate:
    count = int(scores.counts_P.sum())
    label = f"{point.series} w={weight_label(point)}" + ("" if point.seed is None else f" seed={point.seed}")
    share_of = tuple(count if share else None for share in is_share)
    return Candidate(label, dict(point.weights), scores.means_PM, share_of, adapter)


def _solved(home: Path, own: Sequence[Candidate]) -> list[Candidate]:
    """A conditioned adapter at every w between those that it was measured at; none where w has no order.

    Args:
        home: its run.
        own: its measured points.
    """
    names = list(own[0].weights)
    if len(names) != 2 or len(own) < 2:
        say(f"{home}: only the w that it was measured at; two or more of two objectives are needed to solve for w")
        return []
    ordered = sorted(own, key=lambda one: one.weights[names[0]])
    values_SKPM = np.array([[one.means_PM] for one in ordered])
    w_S = np.array([one.weights[names[0]] for one in ordered])
    line = Line(w_S, values_SKPM.mean(axis=(1, 2)), Scores(values_SKPM, own[0].share_of, ""))
    weights = [one.weights for one in ordered]
    every = between(line, weights, home / "adapter", "the conditioned adapter at")
    return [one for one in every if one.weights[names[0]] not in w_S]


def _adapter_of(folder: Path) -> Path | None:
    """The adapter of a run's policy; None where none is on this machine."""
    adapter = policy_adapter(folder, json.loads((folder / RESULT).read_text(encoding="utf-8")))
    return adapter if adapter is not None and adapter.is_dir() else None


def _write_adapter(chosen: Candidate, target: Path) -> None:
    """A copy with its card; of a conditioned adapter the ordinary one at its w."""
    if chosen.conditioned:
        export(chosen.adapter, conditioned_card("algorithm.runs", chosen.adapter), chosen.weights, target)
        return
    require_as_saved("algorithm.runs", chosen.adapter)
    with new_folder(target) as folder:
        shutil.copytree(chosen.adapter, folder, dirs_exist_ok=True)


def _record(outcome: Outcome, chosen: Candidate, found: Choice, axes: Sequence[str]) -> None:
    card = read_card(chosen.adapter)
    if card is not None:
        outcome.beta, outcome.loss_type, outcome.recipe = card.beta, card.loss_type or None, card.recipe
    outcome.objectives = Objectives("", dict(chosen.weights), next(iter(chosen.weights)))
    outcome.inputs["adapter"] = adapter_id(chosen.adapter)
    for part, verdict_ in (("validation", found.validation), ("test", found.test)):
        named = zip(axes, verdict_.means, strict=True)
        outcome.metrics |= {f"{axis}_{part}": interval.as_record() for axis, interval in named}
    outcome.extra["chance"] = found.chance


def _choice(
    candidates: Sequence[Candidate], prompts: Sequence[str], found: Choice, axes: Sequence[str]
) -> dict[str, Any]:
    """choice.json."""
    chosen = candidates[found.index]
    validation, test = halves(prompts)
    return {
        "policy": chosen.label,
        "weights": dict(chosen.weights),
        "interpolated": chosen.conditioned,
        "chance": found.chance,
        "chance_is": CHANCE_IS,
        "rivals": found.rivals,
        "chance_by_all_prompts": found.chance_of_all,
        "validation": as_record(found.validation, axes),
        "test": as_record(found.test, axes),
        "candidates": len(candidates),
        "split": {"validation": [prompts[index] for index in validation], "test": [prompts[index] for index in test]},
    }


def _sentences(
    candidates: Sequence[Candidate],
    prompts: Sequence[str],
    found: Choice,
    target: Mapping[str, float],
    axes: Sequence[str],
) -> list[str]:
    """What was chosen, from what, and how sure that is."""
    chosen, (validation, test) = candidates[found.index], halves(prompts)
    goal = " and ".join(f"{name} >= {value:g}" for name, value in target.items())
    split = f"chosen on {len(validation)} prompts, judged on the other {len(test)}, split by the prompts' hash"
    lines = [f"{goal}: {split}", f"chosen of {len(candidates)}: {chosen.label}"]
    for part, one in (("validation", found.validation), ("test", found.test)):
        shown = ", ".join(f"{axis} {_shown(mean)}" for axis, mean in zip(axes, one.means, strict=True))
        lines.append(f"  {part + ' half:':17}{shown}; target {'met' if one.met else 'NOT met'} by the means")
    if found.chance is None or found.test.chance is None or found.chance_of_all is None:
        lines.append("chance that its true means reach the target: unknown, its scores do not vary")
    else:
        parts = f"test half alone {found.test.chance:.0%}, all prompts {found.chance_of_all:.0%}"
        lines.append(f"chance that its true means reach the target: {found.chance:.0%} ({parts})")
    if chosen.conditioned:
        lines.append(
            "its means are interpolated between measured w; algorithm=evaluate algorithm.adapter=... measures it"
        )
    return lines


def _none_meets(
    candidates: Sequence[Candidate], prompts: Sequence[str], plan: Plan[ChooseConfig], targets: Mapping[int, float]
) -> str:
    """That no policy meets the targets, which comes nearest, and whether it is only its chance that falls short."""
    target, (validation, _) = plan.target, halves(prompts)
    near = candidates[nearest_miss(candidates, validation, targets)]
    found = verdict(near, validation, targets)
    means, doubt = found.means, ""
    if found.met:
        chance = (
            "an unknown chance: its scores do not vary" if found.chance is None else f"a chance of {found.chance:.0%}"
        )
        doubt = f"; its means do, with {chance} (algorithm.min_chance={plan.algorithm.min_chance:g})"
    goal = " ".join(f"target.{name}={value:g}" for name, value in target.items())
    shown = ", ".join(f"{name} {_shown(means[axis])}" for name, axis in zip(target, targets, strict=True))
    half = f"the {len(validation)} prompts of the choice"
    return f"{goal}: no policy meets it on {half}; the nearest is {near.label}: {shown}{doubt}"


def _shown(interval: Interval) -> str:
    ends = "" if interval.bounds is None else f" [{interval.bounds[0]:.3g}, {interval.bounds[1]:.3g}]"
    return f"{interval.mean:.3g}{ends}"
