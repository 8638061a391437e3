"""What all pictures share: colours, marks, and how a figure becomes a file."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, TYPE_CHECKING

from alignlab.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
FORMATS = ("png", "svg", "pdf")


@dataclass(frozen=True)
class Style:
    """How one series looks, in pictures and on the page."""

    color: str
    on_dark: str
    """Its colour on a dark page."""
    marker: str
    """matplotlib's name of its mark."""
    symbol: str
    """plotly's name of the same mark."""

    def as_record(self) -> dict[str, object]:
        """For the page: the colours on a light and on a dark one, and the mark."""
        return {"colors": [self.color, self.on_dark], "symbol": self.symbol}


# After Okabe and Ito's palette, which colour-blind readers can tell apart; each series has a shape of its own besides.
STYLES = (
    Style("#0072B2", "#4FA8E8", "o", "circle"),
    Style("#D55E00", "#FF8B3D", "s", "square"),
    Style("#009E73", "#2FC796", "^", "triangle-up"),
    Style("#CC79A7", "#E79CC4", "D", "diamond"),
    Style("#B8860B", "#DDAE3A", "v", "triangle-down"),
    Style("#56B4E9", "#8FD0F5", "P", "cross"),
    Style("#8A6BBE", "#B79FE3", "X", "x"),
    Style("#7F7F7F", "#A8A8A8", "h", "hexagon"),
    Style("#6B7A1E", "#B9C862", "<", "triangle-left"),
)
REFERENCE_STYLE = Style("#555555", "#C3CAD2", "*", "star")
USUAL_STYLE = {"modpo": 0, "dpo": 1, "soup": 2, "sft": 3}
"""Algorithm -> its index in STYLES, from picture to picture."""
EXACT, REFERENCE, FAINT = "#222222", REFERENCE_STYLE.color, "#8a8a8a"


def styles_of(algorithms: Mapping[str, str]) -> dict[str, Style]:
    """The style of each series: an algorithm keeps its usual one, the others take what is free.

    Args:
        algorithms: series -> its algorithm.
    """
    free = list(range(len(STYLES)))
    taken: dict[str, Style] = {}
    for name in sorted(algorithms, key=lambda name: algorithms[name] not in USUAL_STYLE):
        usual = USUAL_STYLE.get(algorithms[name], -1)
        rest = [index for index in free if index not in USUAL_STYLE.values()] or free
        index = usual if usual in free else next(iter(rest), None)
        taken[name] = _mixed(len(taken)) if index is None else STYLES[index]
        free = [one for one in free if one != index]
    return taken


def _mixed(index: int) -> Style:
    """The colour of one style with the mark of another, where there are more series than styles."""
    mark = STYLES[(index + index // len(STYLES)) % len(STYLES)]
    return replace(STYLES[index % len(STYLES)], marker=mark.marker, symbol=mark.symbol)


def save_figure(figure: "Figure", path: Path, *, also: Sequence[str] = ()) -> Path:
    """Write a figure into a .png, .svg or .pdf file, atomically; return the path.

    Args:
        figure: drawn.
        path: its suffix says the format.
        also: further suffixes, of files of the same name beside it.

    Raises:
        ValueError: for another suffix; nothing is written then.
    """
    formats = {one: one.suffix.removeprefix(".").lower() for one in (path, *map(path.with_suffix, also))}
    for one, kind in formats.items():
        if kind not in FORMATS:
            raise ValueError(f"{one.name}: must end in .{', .'.join(FORMATS)}")
    for one, kind in formats.items():
        with replacing(one) as unfinished:
            draw_figure(figure, unfinished, kind=kind)
    return path


def draw_figure(figure: "Figure", target: "Path | IO[bytes]", *, kind: str) -> None:
    """Write a figure without the time and the random names that matplotlib puts in: the same figure, the same bytes.

    Args:
        figure: drawn.
        target: where to.
        kind: one of FORMATS.
    """
    from matplotlib import rc_context

    time = {"svg": "Date", "pdf": "CreationDate"}.get(kind)
    with rc_context({"svg.hashsalt": "alignlab"}):
        figure.savefig(target, format=kind, dpi=DPI, metadata={} if time is None else {time: None})
