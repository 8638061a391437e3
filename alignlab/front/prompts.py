"""Scores by prompt of the runs on a front: what pairs neighbouring w, and what a bootstrap draws from.

Shape letters: S settings (of one run: samples), K seeds, P prompts, M axes, N scores, R bootstrap draws.
"""

import json
import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.io.jsonl import read_jsonl
from alignlab.stats import FEWEST_SEEDS, bootstrap_weights
from alignlab.stats.groups import Floats

if TYPE_CHECKING:
    from alignlab.front.series import PlotPoint

GENERATIONS, SCORES = "generations.jsonl", "scores.jsonl"
NUM_RESAMPLES = 500


@dataclass(frozen=True)
class PromptScores:
    """Mean score of each prompt's samples, of those with a known score."""

    prompts: tuple[str, ...]
    """Sorted; a prompt without a known score by every axis is left out."""
    means_PM: Floats
    counts_P: Floats
    """Known scores of each prompt, of the axis that has fewest."""
    is_share: tuple[bool, ...]
    """Of each axis, whether every score is 0 or 1."""

    def on(self, prompts: Sequence[str]) -> "PromptScores":
        """The same of some of its prompts."""
        index_of = {name: index for index, name in enumerate(self.prompts)}
        rows = [index_of[name] for name in prompts]
        return PromptScores(tuple(prompts), self.means_PM[rows], self.counts_P[rows], self.is_share)


def prompt_scores(folder: Path, axes: Sequence[str]) -> PromptScores | None:
    """A run's scores by prompt, from scores.jsonl and generations.jsonl; None where these do not hold every axis.

    A score that is null is unknown, and in no mean. Kept while the files are the same: a front asks for a run's scores
    once for each of its statistics.
    """
    try:
        states = [(file.stat().st_mtime_ns, file.stat().st_size) for file in (folder / GENERATIONS, folder / SCORES)]
    except OSError:
        return None
    return _read_scores(folder, tuple(axes), str(states))


@lru_cache(maxsize=256)
def _read_scores(folder: Path, axes: tuple[str, ...], state: str) -> PromptScores | None:
    """What `prompt_scores` returns.

    Args:
        folder: of the run.
        axes: metrics.
        state: of the files, which tells rewritten ones apart.
    """
    try:
        prompts = {row["id"]: json.dumps(row["prompt"], sort_keys=True) for row in read_jsonl(folder / GENERATIONS)}
        by_prompt: dict[str, list[list[float]]] = {}
        for row in read_jsonl(folder / SCORES):
            values = [math.nan if row[axis] is None else float(row[axis]) for axis in axes]
            by_prompt.setdefault(prompts[row["id"]], []).append(values)
    except (OSError, ValueError, KeyError, TypeError):
        return None
    scores = {name: np.array(values) for name, values in by_prompt.items()}
    known = {name: np.isfinite(values_SM).sum(axis=0) for name, values_SM in scores.items()}
    names = tuple(name for name in sorted(scores) if known[name].all())
    if not names:
        return None
    all_NM = np.concatenate([scores[name] for name in names])
    is_share = (np.isin(all_NM, (0.0, 1.0)) | np.isnan(all_NM)).all(axis=0)
    means_PM = np.array([np.nanmean(scores[name], axis=0) for name in names])
    counts_P = np.array([known[name].min() for name in names], dtype=np.float64)
    return PromptScores(names, means_PM, counts_P, tuple(is_share.tolist()))


def scores_of(setting: "PlotPoint", axes: Sequence[str]) -> PromptScores | None:
    """A setting's scores by prompt, averaged over its seeds; None where its runs have none or other prompts."""
    found = [prompt_scores(run.folder, axes) for run in setting.runs]
    known = [one for one in found if one is not None]
    if len(known) < len(found) or any(one.prompts != known[0].prompts for one in known):
        return None
    means_PM = np.mean([one.means_PM for one in known], axis=0)
    is_share = tuple(all(flags) for flags in zip(*(one.is_share for one in known), strict=True))
    return PromptScores(known[0].prompts, means_PM, np.sum([one.counts_P for one in known], axis=0), is_share)


@dataclass(frozen=True)
class Scores:
    """Scores of several settings by seed and prompt."""

    values_SKPM: Floats
    share_of: tuple[int | None, ...]
    """Of each axis, the fewest values behind a setting's mean where all are 0 or 1; None for any other axis."""
    over: str
    """What another study would draw anew, and how many of it."""


def seed_scores(settings: Sequence["PlotPoint"], axes: Sequence[str]) -> Scores | None:
    """Scores on the prompts that all runs have; None where there are fewer than two, or a run has none.

    Seeds stay apart where every setting has the same ones; else each setting's are averaged.
    """
    by_run = [[prompt_scores(run.folder, axes) for run in _by_seed(setting)] for setting in settings]
    known = [[one for one in runs if one is not None] for runs in by_run]
    if not settings or any(len(some) < len(runs) for some, runs in zip(known, by_run, strict=True)):
        return None
    every = [one for runs in known for one in runs]
    shared = sorted(set.intersection(*(set(one.prompts) for one in every)))
    if len(shared) < 2:
        return None
    on_shared = [[one.on(shared) for one in runs] for runs in known]
    values = [np.array([one.means_PM for one in runs]) for runs in on_shared]
    num_seeds = _shared_seeds(settings)
    if not num_seeds:
        values = [of_setting.mean(axis=0, keepdims=True) for of_setting in values]
    fewest = min(sum(int(one.counts_P.sum()) for one in runs) for runs in on_shared)
    is_share = [all(one.is_share[index] for one in every) for index in range(len(axes))]
    left_out = len({name for one in every for name in one.prompts}) - len(shared)
    parts = [
        f"{len(shared)} prompts" + (f" ({left_out} left out, which not all runs have scores on)" if left_out else "")
    ]
    parts += [f"{num_seeds} seeds"] if num_seeds > 1 else []
    return Scores(np.array(values), tuple(fewest if share else None for share in is_share), " and ".join(parts))


def _shared_seeds(settings: Sequence["PlotPoint"]) -> int:
    """Number of seeds, where every setting has the same ones; else 0."""
    seeds = {tuple(sorted(str(run.seed) for run in setting.runs)) for setting in settings}
    return len(next(iter(seeds))) if len(seeds) == 1 else 0


@dataclass(frozen=True)
class Resampled:
    """Bootstrap draws of every setting's position."""

    means_RSM: Floats
    over: str
    """What was drawn."""


def resampled(settings: Sequence["PlotPoint"], axes: Sequence[str], *, seed: int = 0) -> Resampled | None:
    """Positions under draws of prompts, and of seeds where every setting has the same two or more; the same for all.

    None where neither is available: other prompts, no scores by prompt, and fewer than FEWEST_SEEDS shared seeds.

    Args:
        settings: of one series.
        axes: metrics.
        seed: of the draws.
    """
    scores, num_seeds = seed_scores(settings, axes), _shared_seeds(settings)
    if scores is not None:
        values_SKPM, over = scores.values_SKPM, scores.over
    elif num_seeds >= FEWEST_SEEDS:
        values_SKPM = np.array([[[run.position] for run in _by_seed(setting)] for setting in settings])
        over = f"{num_seeds} seeds"
    else:
        return None
    num_prompts = values_SKPM.shape[2]
    seeds_RK = bootstrap_weights(values_SKPM.shape[1], seed=seed, resamples=NUM_RESAMPLES)
    prompts_RP = bootstrap_weights(num_prompts, seed=seed + 1, resamples=NUM_RESAMPLES)
    drawn_RSPM = np.einsum("rk,skpm->rspm", seeds_RK / seeds_RK.shape[1], values_SKPM)
    return Resampled(np.einsum("rp,rspm->rsm", prompts_RP / num_prompts, drawn_RSPM), over)


def _by_seed(setting: "PlotPoint") -> list[Any]:
    return sorted(setting.runs, key=lambda run: str(run.seed))
