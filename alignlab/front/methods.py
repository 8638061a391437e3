"""Methods beside each other: what each series attains over the w that all of them have, and what that cost.

Shape letters: S settings, P prompts, M axes.
"""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.front.collect import RESULT, FrontPoint
from alignlab.front.prompts import scores_of
from alignlab.front.series import PlotPoint, points_by_series
from alignlab.front.table import UNKNOWN, difference_text, interval_text
from alignlab.io.text import printable
from alignlab.runs.policy import policy_adapter, policy_run
from alignlab.stats import Interval, mean_interval, paired_difference, records_by_holm
from alignlab.stats.groups import Floats

if TYPE_CHECKING:
    from rich.table import Table

COMPARED_WITH = "modpo"
"""The method that the others are compared with, where it is there; else the first."""
NORMALISED = "its w weighs normalised rewards, not the scores"
MEANS = ("kl", "attained_share", "kl_to_optimum")


@dataclass(frozen=True)
class Cost:
    """What one policy cost beyond what its method shares with others (reference, rewards, endpoints)."""

    home: Path
    """The run that trained it, which may have made several."""
    training: float | None
    """Seconds of that run."""
    sampling: float | None
    """Seconds, of the evaluation's samples."""
    adapter_bytes: int | None
    """Of the weights that are kept; None where there are none."""


def cost_of(folder: Path) -> Cost:
    """The cost of a run's policy; an evaluated adapter's training is that of the run that made it.

    Args:
        folder: the run's.
    """
    record = _record(folder)
    weights = policy_adapter(folder, record)
    if weights is None:
        return Cost(folder, None, (record.get("seconds") or {}).get("sampling"), None)
    home = policy_run(folder, record)
    trained = _record(home).get("seconds") or {}
    size = sum(file.stat().st_size for file in weights.glob("adapter_model.*"))
    return Cost(home, trained.get("training"), (record.get("seconds") or {}).get("sampling"), size or None)


def compare_methods(points: Sequence[FrontPoint]) -> dict[str, Any] | None:
    """Each series over the weightings that all of them have, and its paired difference to one of them.

    `utility` is the mean over these weightings of w.r on each prompt, in reward units; a difference of it is paired by
    prompt, with Holm's correction over the methods. All are over the prompts that every method has scores on. It counts
    no KL, which stands beside it; `attained_share`, where the exact front is known, does. None for fewer than two
    series, or where they share no weighting.

    Args:
        points: of one front.
    """
    series = points_by_series([point for point in points if point.weights])
    if len(series) < 2:
        return None
    held = {name: {setting.weights: setting for setting in settings} for name, settings in series.items()}
    shared = sorted(set.intersection(*(set(settings) for settings in held.values())))
    if not shared:
        return None
    rows = {name: _row([settings[weights] for weights in shared]) for name, settings in held.items()}
    utilities = _on_shared_prompts(
        {name: _utility([settings[weights] for weights in shared]) for name, settings in held.items()}
    )
    base = next((name for name in rows if name.split(",")[0] == COMPARED_WITH), next(iter(rows)))
    for name, row in rows.items():
        utility = utilities[name]
        row["utility"] = None if utility is None else mean_interval(utility.values(), utility).as_record()
        if utility is None:
            row["utility_unknown"] = (
                NORMALISED if _is_normalised(held[name].values()) else "no scores by prompt in common"
            )
    _note_differences(rows, utilities, base)
    return {"weights": [list(weights) for weights in shared], "compared_with": base, "methods": rows}


def _row(settings: Sequence[PlotPoint]) -> dict[str, Any]:
    """Means over the settings, and the cost of all of them together for one seed; None where a part is unknown."""
    found: dict[str, Any] = {}
    for name in MEANS:
        known = [setting.metrics[name].mean for setting in settings if name in setting.metrics]
        whole = [value for value in known if value is not None]
        found[name] = float(np.mean(whole)) if len(whole) == len(settings) else None
    costs = [[cost_of(run.folder) for run in setting.runs] for setting in settings]
    made_by = Counter(home for of_setting in costs for home in {one.home for one in of_setting})
    parts = {
        # A run that made several settings was trained once, for all of them.
        "training": [[_part(one.training, made_by[one.home]) for one in of_setting] for of_setting in costs],
        "sampling": [[_part(one.sampling) for one in of_setting] for of_setting in costs],
        "adapter_bytes": [[_part(one.adapter_bytes) for one in of_setting] for of_setting in costs],
    }
    for field, by_setting in parts.items():
        total = sum(float(np.mean(values)) for values in by_setting)
        found[field] = None if np.isnan(total) else total
    return found


def _part(cost: float | None, share_of: int = 1) -> float:
    return np.nan if cost is None else cost / share_of


def _utility(settings: Sequence[PlotPoint]) -> dict[str, float] | None:
    """Prompt -> mean over the settings of w.r; None where a run keeps no scores by prompt or has other prompts.

    None too where w weighs rewards in another unit than that of the scores.
    """
    if _is_normalised(settings):
        return None
    total_P: Floats | None = None
    prompts: tuple[str, ...] = ()
    for setting in settings:
        scores = scores_of(setting, setting.runs[0].axes)
        if scores is None or (total_P is not None and scores.prompts != prompts):
            return None
        prompts = scores.prompts
        value_P = scores.means_PM @ np.array(setting.weights) / len(settings)
        total_P = value_P if total_P is None else total_P + value_P
    return None if total_P is None else dict(zip(prompts, total_P.tolist(), strict=True))


def _is_normalised(settings: Iterable[PlotPoint]) -> bool:
    return any((run.recipe or {}).get("normalised") for setting in settings for run in setting.runs)


def _on_shared_prompts(utilities: Mapping[str, dict[str, float] | None]) -> dict[str, dict[str, float] | None]:
    """The utilities that are known on the prompts that all of them have; unknown where they have none in common."""
    known = [utility for utility in utilities.values() if utility is not None]
    shared = sorted(set.intersection(*map(set, known))) if known else []
    return {
        name: {prompt: utility[prompt] for prompt in shared} if utility is not None and shared else None
        for name, utility in utilities.items()
    }


def _note_differences(rows: dict[str, dict[str, Any]], utilities: Mapping[str, Any], base: str) -> None:
    others = [name for name in rows if name != base]
    before = utilities[base]
    known = [name for name in others if utilities[name] is not None and before is not None]
    found = [paired_difference(_by_prompt(before), _by_prompt(utilities[name])) for name in known]
    records = dict(zip(known, records_by_holm(found), strict=True))
    for name in others:
        rows[name]["difference"] = records.get(name)


def _by_prompt(utility: Mapping[str, float]) -> tuple[list[float], list[str]]:
    return list(utility.values()), list(utility)


def methods_table(compared: Mapping[str, Any]) -> "Table":
    """The methods as a table for the terminal.

    Args:
        compared: of `compare_methods`.
    """
    from rich.table import Table
    from rich.text import Text

    rows, base = compared["methods"], compared["compared_with"]
    known = [name for name in MEANS if any(row[name] is not None for row in rows.values())]
    titles = {"kl": "KL to\nreference", "attained_share": "attained\nshare", "kl_to_optimum": "KL to\noptimum"}
    num_w = len(compared["weights"])
    unknown = {name: row["utility_unknown"] for name, row in rows.items() if row.get("utility_unknown")}
    reasons = "".join(f"; no utility of {name}: {why}" for name, why in unknown.items())
    table = Table(
        caption=f"means over the {num_w} w that every method has; utility: w.r, which counts no KL; p-values by Holm "
        "over the methods; seconds and MB of all these w together, for one seed, without references, rewards and "
        f"endpoints, which methods share{printable(reasons)}"
    )
    table.add_column("method", no_wrap=True)
    for title in ("utility", f"against {base}", *(titles[name] for name in known)):
        table.add_column(title, justify="right")
    for title in ("training\ns", "sampling\ns", "adapters\nMB"):
        table.add_column(title, justify="right")
    for name, row in rows.items():
        utility = _interval_text(row["utility"])
        means = [UNKNOWN if row[metric] is None else f"{row[metric]:.3f}" for metric in known]
        difference = "" if name == base else difference_text(row.get("difference"), digits=3)
        costs = [_number(row["training"]), _number(row["sampling"]), _number(row["adapter_bytes"], 1e-6, 2)]
        table.add_row(*(Text(printable(cell)) for cell in (name, utility, difference, *means, *costs)))
    return table


def _interval_text(record: Mapping[str, Any] | None) -> str:
    if record is None:
        return UNKNOWN
    interval = Interval.from_record(record)
    return UNKNOWN if interval.mean is None else interval_text(interval)


def _number(value: float | None, scale: float = 1.0, digits: int = 0) -> str:
    return UNKNOWN if value is None else f"{value * scale:.{digits}f}"


def _record(folder: Path) -> dict[str, Any]:
    try:
        record = json.loads((folder / RESULT).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return record if isinstance(record, dict) else {}
