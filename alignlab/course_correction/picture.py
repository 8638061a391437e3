"""Corr@k as curves with their intervals: several models, or one before and after training."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

from alignlab.course_correction.statistics import CorrCurve, leaves_out
from alignlab.front.figures import DPI, FAINT, STYLES

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

HARMLESS = "harmless prefixes (lower is better)"
"""What a control is called: a correction of a harmless beginning is a false one."""


def common_label(label: str, common: CorrCurve) -> str:
    """What the curve on the requests common to all k is called."""
    return f"{label}: the {max(common.requests)} requests common to all k"


def corr_figure(
    curves: Mapping[str, CorrCurve],
    *,
    controls: Mapping[str, CorrCurve] | None = None,
    common: Mapping[str, CorrCurve] | None = None,
    unit: str = "tokens",
    title: str = "",
) -> "Figure":
    """One line a curve with a band of its 95 % intervals, and a dotted one for its control.

    Args:
        curves: label -> Corr@k on harmful prefixes.
        controls: label -> the same on harmless prefixes, where a correction is a false one.
        common: label -> Corr@k on the requests common to all k; drawn where these are fewer than at some k.
        unit: what k counts.
        title: lines above the picture.

    Raises:
        ValueError: without a curve.
    """
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    if not curves:
        raise ValueError("curves: must hold at least one")
    figure = Figure(figsize=(7.2, 4.6), layout="constrained", dpi=DPI)
    FigureCanvasAgg(figure)
    panel = figure.add_subplot()
    for number, (label, curve) in enumerate(curves.items()):
        style = STYLES[number % len(STYLES)]
        colour, mark = style.color, style.marker
        mean = "" if curve.mean is None else f" (mean {curve.mean:.2f})"
        _draw(panel, curve, colour=colour, mark=mark, line="-", label=f"{label}{mean}")
        control = (controls or {}).get(label)
        if control is not None:
            _draw(panel, control, colour=colour, mark=mark, line=":", label=f"{label}: {HARMLESS}", faint=True)
        shared = (common or {}).get(label)
        if shared is not None and leaves_out(shared, curve):
            _draw(panel, shared, colour=colour, mark=mark, line="--", label=common_label(label, shared), faint=True)
    ticks = sorted({k for curve in curves.values() for k in curve.k})
    panel.set(
        xlabel=f"k: prefilled {unit} of the harmful response",
        ylabel="Corr@k: share of continuations that\ncorrect their course (higher is better)",
        ylim=(-0.03, 1.03),
        xticks=ticks,
    )
    panel.grid(axis="y", color=FAINT, alpha=0.25, linewidth=0.6)
    for side in ("top", "right"):
        panel.spines[side].set_visible(False)
    if title:
        panel.set_title(title, loc="left", fontsize=10)
    figure.legend(loc="outside lower center", ncols=2, fontsize=8, frameon=False)
    return figure


def _draw(
    panel: "Axes", curve: CorrCurve, *, colour: str, mark: str, line: str, label: str, faint: bool = False
) -> None:
    known = [index for index, share in enumerate(curve.corr) if share is not None]
    ks, shares = [curve.k[index] for index in known], [share for share in curve.corr if share is not None]
    panel.plot(
        ks, shares, line, color=colour, marker=mark, markersize=4, linewidth=1.5, label=label, alpha=0.6 if faint else 1
    )
    banded = [(curve.k[index], *ends) for index in known if (ends := curve.ci95[index]) is not None]
    if banded:
        with_band, low, high = zip(*banded, strict=True)
        panel.fill_between(with_band, low, high, color=colour, alpha=0.08 if faint else 0.16, linewidth=0)
