"""What every round of a run came to: rewards, KL and length on the same held-out prompts, in words and a picture."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from alignlab.config.names import HELD_OUT, ROUNDS_PICTURE, first_scorer
from alignlab.front.figures import DPI, STYLES, save_figure
from alignlab.runs.progress import say
from alignlab.runs.result import Metrics, read_result, write_result

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KL, TOKENS = "kl", "tokens"
_OF_RESPONSES = ("kl", "tokens", "cut")
_SHOWN = (("kl", "KL", "nats"), ("tokens", "length", "tokens"))


def report_rounds(folder: Path, evaluations: Sequence[Path]) -> None:
    """Say what every round's policy came to, keep it under `rounds` in result.json, and draw it.

    Args:
        folder: the run of the last round.
        evaluations: folders of the reference's evaluation and of each round's, in turn.
    """
    rounds = [_measured(number, evaluation, folder) for number, evaluation in enumerate(evaluations)]
    for one in rounds:
        say(_shown(one["round"], one["metrics"]))
    result, picture = read_result(folder), folder / ROUNDS_PICTURE
    assert result is not None, "the run has ended"
    if result.extra.get("rounds") != rounds or not picture.exists():
        save_figure(rounds_figure({one["round"]: one["metrics"] for one in rounds}), picture)
        write_result(folder, replace(result, extra={**result.extra, "rounds": rounds}))
    say(f"rounds: {picture}")


def rounds_figure(rounds: Mapping[int, Metrics]) -> "Figure":
    """Three panels against the round: each scorer's gain over the reference, KL in nats, tokens an answer.

    Bars are 95 % intervals over prompts; a held-out scorer's line is dashed, in its objective's colour.

    Args:
        rounds: round -> metrics of its policy; 0 is the reference.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import MaxNLocator

    figure = Figure(figsize=(10, 3.2), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    gains, kl, length = figure.subplots(1, 3)
    names = [name.removesuffix("_gain") for name in rounds[max(rounds)] if name.endswith("_gain")]
    objectives = list(dict.fromkeys(map(first_scorer, names)))
    for name in names:
        style = STYLES[objectives.index(first_scorer(name)) % len(STYLES)]
        colour, marker = style.color, style.marker
        held_out = name.endswith(f"_{HELD_OUT}")
        label = f"{first_scorer(name)} (held-out scorer)" if held_out else name
        known = {0: {"mean": 0.0, "ci95": None}} | {
            number: metrics[f"{name}_gain"] for number, metrics in rounds.items() if f"{name}_gain" in metrics
        }
        _draw(gains, known, colour=colour, marker=marker, line="--" if held_out else "-", label=label)
    for panel, metric in ((kl, KL), (length, TOKENS)):
        known = {number: metrics[metric] for number, metrics in rounds.items() if metric in metrics}
        _draw(panel, known, colour="#222222", marker="o", line="-", label="")
    gains.set(ylabel="gain over the reference, scorers' units")
    gains.legend(fontsize="small")
    kl.set(ylabel="KL to the reference, nats")
    length.set(ylabel="tokens an answer")
    for panel in (gains, kl, length):
        panel.set(xlabel="round (0 is the reference)")
        panel.xaxis.set_major_locator(MaxNLocator(integer=True))
    return figure


def _draw(
    panel: "Axes", metrics: Mapping[int, Mapping[str, Any]], *, colour: str, marker: str, line: str, label: str
) -> None:
    """One line with its intervals; what is unknown is left out.

    Args:
        panel: where.
        metrics: round -> metric.
        colour: of line and marks.
        marker: of the marks.
        line: its style.
        label: in the legend.
    """
    shown = {number: one for number, one in sorted(metrics.items()) if one["mean"] is not None}
    means = [one["mean"] for one in shown.values()]
    ends = [one["ci95"] or (one["mean"], one["mean"]) for one in shown.values()]
    bars = [[mean - low for mean, (low, _) in zip(means, ends, strict=True)]]
    bars.append([high - mean for mean, (_, high) in zip(means, ends, strict=True)])
    panel.errorbar(list(shown), means, yerr=bars, color=colour, marker=marker, linestyle=line, label=label, capsize=2)


def _measured(number: int, evaluation: Path, folder: Path) -> dict[str, Any]:
    """One round's record: round 0 is the reference."""
    result = read_result(evaluation)
    assert result is not None, "the evaluation has ended"
    kept = (*(f"{name}_{end}" for name in result.extra["scorers"] for end in ("reward", "gain")), *_OF_RESPONSES)
    metrics = {name: result.metrics[name] for name in kept if name in result.metrics}
    return {"round": number, "evaluation": os.path.relpath(evaluation, folder), "metrics": metrics}


def _shown(number: int, metrics: Metrics) -> str:
    named = "round 0 (the reference)" if number == 0 else f"round {number}"
    rewards = {name.removesuffix("_reward"): one for name, one in metrics.items() if name.endswith("_reward")}
    parts = [f"{name} {_mean(one)}" for name, one in rewards.items()]
    parts += [f"{title} {_mean(metrics[key])} {unit}" for key, title, unit in _SHOWN if key in metrics]
    return f"{named}: {', '.join(parts)}"


def _mean(metric: dict[str, Any]) -> str:
    if metric["mean"] is None:
        return "unknown"
    ends = metric["ci95"]
    return f"{metric['mean']:.3g}" + (f" [{ends[0]:.3g}, {ends[1]:.3g}]" if ends else "")
