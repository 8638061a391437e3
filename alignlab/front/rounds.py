"""The rounds of a run as a picture: rewards, KL and length of each round's policy."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from alignlab.config.names import HELD_OUT, first_scorer
from alignlab.front.figures import DPI, STYLES
from alignlab.runs.result import Metrics

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

KL, TOKENS = "kl", "tokens"


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
        colour, marker = STYLES[objectives.index(first_scorer(name)) % len(STYLES)]
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
