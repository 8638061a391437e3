"""Any two points of a front: their differences, paired by prompt, and which points another one dominates.

Shape letters: S settings, M axes, R bootstrap draws.
"""

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np

from alignlab.front.collect import FrontPoint
from alignlab.front.prompts import prompt_scores, resampled, scores_of
from alignlab.front.series import PlotPoint, points_by_series
from alignlab.stats import paired_difference, records_by_holm
from alignlab.stats.groups import Floats

MOST_COMPARED = 40
"""Settings of which any two are compared; beyond, there would be thousands of differences that nobody reads."""


def comparisons(points: Sequence[FrontPoint]) -> dict[str, Any] | None:
    """Differences between any two settings, the reference among them, and who dominates whom.

    `pairs` are second minus first on the prompts that both have, means over seeds; how much another seed would change
    them is not in them. P-values are corrected by Holm over all pairs and axes, whose number is `comparisons`.
    `not_compared` says of which settings there are no differences, and why. `dominated` holds every setting that some
    other one is better than on every axis, by the means or with a chance of a half or more. None for fewer than
    two settings, or more than MOST_COMPARED.

    Args:
        points: of one front.
    """
    settings = settings_of(points)
    if not 2 <= len(settings) <= MOST_COMPARED:
        return None
    axes = points[0].axes
    pairs = _differences(settings, axes)
    compared = {name for pair in pairs for name in (pair["from"], pair["to"])}
    return {
        "settings": list(settings),
        "comparisons": sum(one["p"] is not None for pair in pairs for one in pair["differences"].values()),
        "pairs": pairs,
        "not_compared": {name: _why(one, axes) for name, one in settings.items() if name not in compared},
        "dominated": dominated(settings, axes),
    }


def settings_of(points: Sequence[FrontPoint]) -> dict[str, PlotPoint]:
    """Every setting by the label under which it is compared: series and w, or the folder where neither tells it."""
    return {
        _label(name, setting, alone=len(held) == 1): setting
        for name, held in points_by_series(points).items()
        for setting in held
    }


def _label(series: str, setting: PlotPoint, *, alone: bool) -> str:
    if setting.label:
        return f"{series} w={setting.label}"
    return series if alone else f"{series} {setting.runs[0].folder.name}"


def _differences(settings: Mapping[str, PlotPoint], axes: Sequence[str]) -> list[dict[str, Any]]:
    """Every pair whose scores by prompt are known, on every axis."""
    scores = {name: scores_of(setting, axes) for name, setting in settings.items()}
    known = {name: one for name, one in scores.items() if one is not None}
    pairs, found = [], []
    for first, second in combinations(known, 2):
        before, after = known[first], known[second]
        if not set(before.prompts) & set(after.prompts):
            continue
        pairs.append((first, second))
        for index in range(len(axes)):
            shares = before.is_share[index] and after.is_share[index]
            values = ((one.means_PM[:, index].tolist(), one.prompts) for one in (before, after))
            found.append(paired_difference(*values, shares=shares))
    records = iter(records_by_holm(found))
    return [
        {"from": first, "to": second, "differences": {axis: next(records) for axis in axes}} for first, second in pairs
    ]


def _why(setting: PlotPoint, axes: Sequence[str]) -> str:
    """Why a setting is compared with no other one."""
    if any(prompt_scores(run.folder, axes) is None for run in setting.runs):
        return "no scores by prompt"
    return "no prompt in common with another point" if scores_of(setting, axes) else "its seeds have other prompts"


def dominated(settings: Mapping[str, PlotPoint], axes: Sequence[str]) -> list[dict[str, Any]]:
    """Settings that another one is better than on every axis, by the means or with a chance of a half or more.

    Of several such others the one with the greatest chance is named, an unknown chance last. The chance is the share of
    bootstrap draws (of prompts, and of seeds where all have the same) in which that one is better on every axis; None
    without scores by prompt. It is not that of any setting at all, which would grow with the number of settings.

    Args:
        settings: by label.
        axes: metrics, higher is better.
    """
    names = list(settings)
    values_SM = np.array([setting.position(axes) for setting in settings.values()])
    better_SS = _better(values_SM[None])[0]
    chance_SS = np.full_like(better_SS, np.nan)
    known = [index for index, one in enumerate(settings.values()) if scores_of(one, axes) is not None]
    draws = resampled([settings[names[index]] for index in known], axes)
    if draws is not None:
        chance_SS[np.ix_(known, known)] = _better(draws.means_RSM).mean(axis=0)
    found = []
    for index, name in enumerate(names):
        known_S = np.nan_to_num(chance_SS[:, index], nan=-1.0)
        dominators = np.flatnonzero((better_SS[:, index] > 0) | (known_S >= 0.5)).tolist()
        if dominators:
            best = max(dominators, key=lambda other: (known_S[other], better_SS[other, index]))
            chance = None if known_S[best] < 0 else float(known_S[best])
            by_means = bool(better_SS[best, index])
            found.append({"point": name, "by": names[best], "chance": chance, "by_means": by_means})
    return found


def _better(values_RSM: Floats) -> Floats:
    """Whether the first is better than the second on every axis, (R, S, S) of 0 and 1."""
    return np.asarray((values_RSM[:, :, None, :] > values_RSM[:, None, :, :]).all(axis=-1), dtype=np.float64)


def sentences(found: Mapping[str, Any] | None) -> list[str]:
    """How many differences are told apart, and who is dominated, in words.

    Args:
        found: `comparisons`'.
    """
    if found is None or not found["comparisons"]:
        return []
    missing = [f"{name} is compared with no point: {why}" for name, why in found["not_compared"].items()]
    return [told_apart(found), *missing, *map(dominance, found["dominated"])]


def told_apart(found: Mapping[str, Any]) -> str:
    """How many of all differences are told apart, and of how many comparisons.

    Args:
        found: `comparisons`'.
    """
    told = sum(one["told_apart"] is True for pair in found["pairs"] for one in pair["differences"].values())
    count = len(found["settings"])
    return (
        f"{told} of {found['comparisons']} differences between any two of {count} points are told apart, by Holm over "
        f"{found['comparisons']} comparisons"
    )


def dominance(one: Mapping[str, Any]) -> str:
    """Which point is dominated by which, with what chance.

    Args:
        one: of `dominated`.
    """
    chance = "" if one["chance"] is None else f" with a chance of {one['chance']:.0%}"
    return f"{one['point']} is dominated{chance} by {one['by']}, better on every axis"
