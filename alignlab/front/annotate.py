"""Annotate the points of a picture, each text where it overlaps least: no marker, no line, no other text."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from alignlab.stats.groups import Floats

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Annotation:
    """A text for one point, in data coordinates; its offset is found later."""

    panel: "Axes"
    text: str
    x: float
    y: float
    color: str


def annotate(figure: "Figure", labels: Sequence[Annotation]) -> None:
    """Write each text at the free offset nearest to its point: greedy, in pixels, after the layout is fixed."""
    figure.draw_without_rendering()
    figure.set_layout_engine("none")
    taken: dict[Axes, list[Floats]] = {}
    for panel in dict.fromkeys(label.panel for label in labels):
        obstacles_N2 = _obstacles(panel)
        marks_N2 = panel.transData.transform([(label.x, label.y) for label in labels if label.panel is panel])
        taken[panel] = []
        for label in (label for label in labels if label.panel is panel):
            offset = _best_offset(label, obstacles_N2, marks_N2, taken[panel])
            taken[panel].append(offset.box)
            _write(label, offset)


def _write(label: Annotation, found: "_Offset") -> None:
    from matplotlib.patheffects import withStroke

    far = found.gap > 10  # then a thin line joins text and point
    arrow = {"arrowstyle": "-", "color": label.color, "linewidth": 0.6, "shrinkA": 0, "shrinkB": 4} if far else None
    note = label.panel.annotate(
        label.text, (label.x, label.y), xytext=found.offset, textcoords="offset points", ha="center", va="center",
        fontsize=9, color=label.color, arrowprops=arrow, zorder=6,
    )  # fmt: skip
    note.set_path_effects([withStroke(linewidth=2.5, foreground="white")])
    note.set_in_layout(False)


def _obstacles(panel: "Axes") -> Floats:
    """Pixels to keep free of text: all lines, every two pixels, and all markers, shape (n, 2)."""
    found = [np.empty((0, 2))]
    for line in panel.get_lines():
        corners_N2 = panel.transData.transform(np.column_stack(line.get_data()).astype(np.float64))
        corners_N2 = corners_N2[np.isfinite(corners_N2).all(axis=1)]
        if line.get_linestyle() != "None":
            for start, end in itertools.pairwise(corners_N2):
                steps = np.linspace(0.0, 1.0, max(2, int(math.dist(start, end) / 2)))[:, None]
                found.append(start + steps * (end - start))
        if line.get_marker() != "None":
            radius = line.get_markersize() / 2 * panel.figure.dpi / 72
            ring = np.array([(x, y) for x in (-1, 0, 1) for y in (-1, 0, 1)]) * radius
            found.append((corners_N2[:, None, :] + ring).reshape(-1, 2))
    return np.concatenate(found)


@dataclass(frozen=True)
class _Offset:
    """Where a text could go, from its point."""

    gap: float
    """Points between the marker and the text's edge."""
    offset: tuple[float, float]
    """From the marker to the text's centre, points."""
    box: Floats
    """Lower left and upper right corner, pixels, shape (2, 2)."""


def _best_offset(label: Annotation, obstacles_N2: Floats, marks_N2: Floats, boxes: Sequence[Floats]) -> _Offset:
    """The offset with the least overlap: other texts, the panel's edge, lines and markers, then distance."""
    scale = label.panel.figure.dpi / 72
    half = np.array([2.9 * max(2, len(label.text)), 5.2])  # points, at font size 9
    here = label.panel.transData.transform((label.x, label.y))
    frame = label.panel.bbox

    def cost(offset: _Offset) -> float:
        """What speaks against a position: hits, overlaps, the frame, and being nearer to another mark."""
        low, high = offset.box
        hits = int(((obstacles_N2 > low - 3) & (obstacles_N2 < high + 3)).all(axis=1).sum())
        overlaps = sum(bool((low < other[1]).all() and (other[0] < high).all()) for other in boxes)
        outside = low[0] < frame.x0 or low[1] < frame.y0 or high[0] > frame.x1 or high[1] > frame.y1
        to_own = math.dist(here, (low + high) / 2)
        to_any = float(np.linalg.norm(marks_N2 - (low + high) / 2, axis=1).min())
        return 3.0 * hits + 200.0 * overlaps + 500.0 * bool(outside) + 1.5 * (to_own - to_any) + offset.gap

    offsets = []
    for gap, step in itertools.product((4.0, 7.0, 11.0, 16.0, 23.0), range(24)):
        angle = math.pi * (step / 12 + 0.25)
        x, y = np.array([math.cos(angle), math.sin(angle)]) * (half + gap)
        centre = here + np.array([x, y]) * scale
        offsets.append(_Offset(gap, (float(x), float(y)), np.array([centre - half * scale, centre + half * scale])))
    return min(offsets, key=cost)
