"""`target.OBJECTIVE=VALUE` on a front: the w of each series that gets there, as records, a table and sentences."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from alignlab.config.objectives import check_targets
from alignlab.front.collect import FrontPoint
from alignlab.front.prompts import seed_scores
from alignlab.front.series import PlotPoint, points_by_series, varying_weight, w_text
from alignlab.front.which_w import Line, which_w

if TYPE_CHECKING:
    from rich.table import Table

UNKNOWN = "unknown"


def target_summary(points: Sequence[FrontPoint], targets: Mapping[str, float]) -> dict[str, Any]:
    """Series -> what w reaches the targets, as `which_w` says; empty without targets.

    Args:
        points: of one front.
        targets: objective -> the mean that must at least be reached, in the unit of its axis.

    Raises:
        ConfigError: for a target of an unknown objective.
    """
    if not targets or not points:
        return {}
    objectives = points[0].objectives or points[0].axes
    check_targets(targets, objectives)
    series = points_by_series([point for point in points if point.weights])
    return {name: _answer(settings, objectives, targets) for name, settings in series.items()}


def _answer(settings: Sequence[PlotPoint], objectives: Sequence[str], targets: Mapping[str, float]) -> dict[str, Any]:
    axes = settings[0].runs[0].axes
    axis_of = dict(zip(objectives, axes, strict=True))
    wanted = {axis_of[name]: value for name, value in targets.items()}
    line, of, why = line_of(settings)
    if line is None:
        return {
            "w_of": None,
            "over": None,
            "why": why,
            "wanted": dict(targets),
            "settings": _settings(settings, wanted),
        }
    found = {"w_of": of, "why": why, **which_w(line, axes, wanted)}
    found["targets"] = {name: {"axis": axis_of[name], **found["targets"][axis_of[name]]} for name in targets}
    return found


def line_of(settings: Sequence[PlotPoint]) -> tuple[Line | None, str, str | None]:
    """The settings of a series in the order of w, the objective whose weight w is, and why the line or its scores miss.

    There is no line where w has no order: three objectives or more, or two settings of the same w.
    """
    runs = [setting.runs[0] for setting in settings]
    index = varying_weight(runs)
    name = list(runs[0].weights)[index]
    ordered = sorted(settings, key=lambda setting: setting.weights[index])
    w_S = np.array([setting.weights[index] for setting in ordered])
    if len(runs[0].weights) != 2:
        return None, name, "only the w of two objectives have an order to interpolate in"
    if (np.diff(w_S) <= 0).any():
        return None, name, f"several of its policies have the same weight of {name}, so that w has no order"
    axes = runs[0].axes
    scores, why = seed_scores(ordered, axes), None
    if scores is None:
        why = "not all of its runs have scores on the same two prompts or more"
    means_SM = np.array([setting.position(axes) for setting in ordered])
    if scores is not None:
        by_prompt_SM = scores.values_SKPM.mean(axis=(1, 2))
        if not np.allclose(by_prompt_SM, means_SM, rtol=1e-3, atol=1e-3 * np.ptp(means_SM)):
            scores, why = (
                None,
                "its means are over other prompts or choices than its scored responses, as best-of-n's are",
            )
        else:
            means_SM = by_prompt_SM
    return Line(w_S, means_SM, scores), name, why


def _settings(settings: Sequence[PlotPoint], wanted: Mapping[str, float]) -> list[dict[str, Any]]:
    """Whether each trained setting meets the targets, where no line joins them."""
    return [
        {
            "w": setting.label,
            "means": {axis: setting.metrics[axis].as_record() for axis in wanted},
            "met": all(setting.position([axis])[0] >= value for axis, value in wanted.items()),
        }
        for setting in settings
    ]


def target_table(summary: Mapping[str, Any]) -> "Table":
    """A row for each series and target: the w that gets there, and from where to where it is met.

    Args:
        summary: `target_summary`'s.
    """
    from rich.table import Table

    several = len(summary) > 1
    table = Table(
        caption="w by interpolation between the trained w, with its 95 % interval; met: by the means; surely met: by "
        "their 95 % intervals"
    )
    for title in (*(["run"] if several else []), "target", "w", "met", "surely met"):
        table.add_column(title, justify="left" if title in ("run", "target") else "right")
    for name, found in summary.items():
        leading = [name] if several else []
        for objective, one in found.get("targets", {}).items():
            cells = [w_cell(one), _range_text(one["met"]), _range_text(one["surely_met"])]
            table.add_row(*leading, f"{objective} >= {one['at_least']:g}", *cells)
        if found["w_of"] is None:
            goal = " and ".join(f"{objective} >= {value:g}" for objective, value in found["wanted"].items())
            table.add_row(*leading, goal, "no order", "; ".join(_met(found)) or "nowhere", "")
        if len(found.get("targets", {})) > 1:
            table.add_row(*leading, "all of them", _number(found["w"]), _range_text(found["met"]), "")
    return table


def w_cell(one: Mapping[str, Any]) -> str:
    """The w of one target with its interval, or that there is none."""
    if not one["w"]:
        return "every w" if one["met"] else "none"
    interval = UNKNOWN if one["ci95"] is None else _range_text(one["ci95"])
    return f"{' and '.join(f'{w:.3g}' for w in one['w'])} {interval}"


def _range_text(ranges: Sequence[Sequence[float]] | None) -> str:
    if ranges is None:
        return UNKNOWN
    return " and ".join(f"[{low:.3g}, {high:.3g}]" for low, high in ranges) or "nowhere"


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.3g}"


def sentences(summary: Mapping[str, Any]) -> list[str]:
    """The same in words, a line for each series; one that says why where there is none.

    Args:
        summary: `target_summary`'s, of one target or more.
    """
    if not summary:
        return ["target: no policy of this front has weights, so that no w can be named"]
    return [f"{name}: {_sentence(found)}" for name, found in summary.items()]


def _met(found: Mapping[str, Any]) -> list[str]:
    """The trained weights that meet the targets, where no line joins them."""
    return [one["w"] for one in found["settings"] if one["met"]]


def _sentence(found: Mapping[str, Any]) -> str:
    if found["w_of"] is None:
        met = _met(found)
        trained = f"trained weights that meet the target: {'; '.join(met)}" if met else "no trained weights meet it"
        return f"{found['why']}; {trained}"
    low, high = found["range"]
    parts = [_target_sentence(name, one, (low, high)) for name, one in found["targets"].items()]
    if found["w"] is None:
        if len(parts) > 1 and all(one["met"] for one in found["targets"].values()):
            parts.append("no w meets all of them")
        return "; ".join(parts) + ("" if found["why"] is None else f" (no interval: {found['why']})")
    shown = ", ".join(f"{axis} {_with_ends(one)}" for axis, one in found["at_w"].items())
    chance = f"with a chance of {found['chance'] or 0:.0%}"
    if found["chance"] is None:
        chance = f"with an unknown chance ({found['why'] or 'its scores do not vary'})"
    parts.append(
        f"of the w that meet {'them' if len(parts) > 1 else 'it'}, {found['w']:.3g} is best, {chance}: {shown}"
    )
    over = f"no interval: {found['why']}" if found["over"] is None else f"over {found['over']}"
    return f"{'; '.join(parts)} (w is the weight of {found['w_of']}; {over})"


def _target_sentence(name: str, one: Mapping[str, Any], trained: tuple[float, float]) -> str:
    goal, span = f"{name} >= {one['at_least']:g}", w_text(trained[0]) + " to " + w_text(trained[1])
    if one["w"]:
        count = "" if len(one["w"]) == 1 else f"{len(one['w'])} w get there: "
        return f"{goal} is reached at {count}w={w_cell(one)}, met in {_range_text(one['met'])}"
    if one["met"]:
        sure = "surely " if one["surely_met"] == one["met"] else ""
        return f"{goal} is {sure}met at every w from {span}"
    best = one["best"]
    closest = f"the nearest is {_with_ends(best)} at w={best['w']:.3g}"
    doubt = f"; its interval does not rule out w in {_range_text(one['ci95'])}" if one["ci95"] else ""
    return f"no w from {span} gets to {goal}; {closest}{doubt}"


def _with_ends(one: Mapping[str, Any]) -> str:
    ends = one["ci95"]
    return f"{one['mean']:.3g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")
