"""Scores by prompt of the runs on a front: what pairs neighbouring w, and what a bootstrap draws from.

Shape letters: S settings, K seeds, P prompts, M axes, R bootstrap draws.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.front.series import PlotPoint
from alignlab.stats import bootstrap_weights
from alignlab.stats.groups import Floats

GENERATIONS, SCORES = "generations.jsonl", "scores.jsonl"
NUM_RESAMPLES = 500
FEWEST_SEEDS = 3
"""Seeds from which alone, without prompts, a bootstrap is drawn."""


@dataclass(frozen=True)
class PromptScores:
    """Mean score of each prompt's samples."""

    prompts: tuple[str, ...]
    """Sorted."""
    means_PM: Floats


def prompt_scores(folder: Path, axes: Sequence[str]) -> PromptScores | None:
    """A run's scores by prompt, from scores.jsonl and generations.jsonl; None where these do not hold every axis.

    A reward's column may be called by its objective with `_reward` after it, as its metric is.
    """
    try:
        prompts = {row["id"]: json.dumps(row["prompt"], sort_keys=True) for row in _rows(folder / GENERATIONS)}
        by_prompt: dict[str, list[list[float]]] = {}
        for row in _rows(folder / SCORES):
            by_prompt.setdefault(prompts[row["id"]], []).append([float(row[axis]) for axis in axes])
    except (OSError, ValueError, KeyError, TypeError):
        return None
    if not by_prompt:
        return None
    names = tuple(sorted(by_prompt))
    return PromptScores(names, np.array([np.mean(by_prompt[name], axis=0) for name in names]))


def _rows(file: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines() if line]


def scores_of(setting: PlotPoint, axes: Sequence[str]) -> PromptScores | None:
    """A setting's scores by prompt, averaged over its seeds; None where its runs have none or other prompts."""
    found = [prompt_scores(run.folder, axes) for run in setting.runs]
    known = [one for one in found if one is not None]
    if len(known) < len(found) or any(one.prompts != known[0].prompts for one in known):
        return None
    return PromptScores(known[0].prompts, np.mean([one.means_PM for one in known], axis=0))


@dataclass(frozen=True)
class Resampled:
    """Bootstrap draws of every setting's position."""

    means_RSM: Floats
    over: str
    """What was drawn."""


def resampled(settings: Sequence[PlotPoint], axes: Sequence[str], *, seed: int = 0) -> Resampled | None:
    """Positions under draws of prompts, and of seeds where every setting has the same two or more; the same for all.

    None where neither is available: other prompts, no scores by prompt, and fewer than FEWEST_SEEDS shared seeds.

    Args:
        settings: of one series.
        axes: metrics.
        seed: of the draws.
    """
    seeds = {tuple(sorted(str(run.seed) for run in setting.runs)) for setting in settings}
    num_seeds = len(next(iter(seeds))) if len(seeds) == 1 else 0
    by_run = [[prompt_scores(run.folder, axes) for run in _by_seed(setting)] for setting in settings]
    prompts = {None if one is None else one.prompts for runs in by_run for one in runs}
    if None not in prompts and len(prompts) == 1:
        values = [[one.means_PM for one in runs if one is not None] for runs in by_run]
        parts = [f"{len(next(iter(prompts)) or ())} prompts"]
    elif num_seeds >= FEWEST_SEEDS:
        values = [[np.array([setting_run.position]) for setting_run in _by_seed(setting)] for setting in settings]
        parts = []
    else:
        return None
    if num_seeds > 1:
        parts.append(f"{num_seeds} seeds")
    else:
        values = [[np.mean(runs, axis=0)] for runs in values]
    values_SKPM = np.array(values)
    num_prompts = values_SKPM.shape[2]
    seeds_RK = bootstrap_weights(values_SKPM.shape[1], seed=seed, resamples=NUM_RESAMPLES)
    prompts_RP = bootstrap_weights(num_prompts, seed=seed + 1, resamples=NUM_RESAMPLES)
    drawn_RSPM = np.einsum("rk,skpm->rspm", seeds_RK / seeds_RK.shape[1], values_SKPM)
    return Resampled(np.einsum("rp,rspm->rsm", prompts_RP / num_prompts, drawn_RSPM), " and ".join(parts))


def _by_seed(setting: PlotPoint) -> list[Any]:
    return sorted(setting.runs, key=lambda run: str(run.seed))
