"""What all pictures share: colours, marks, and how a figure becomes a file."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.io.atomic import replacing

if TYPE_CHECKING:
    from matplotlib.figure import Figure

DPI = 150
FORMATS = ("png", "svg", "pdf")
# Okabe and Ito's palette, which colour-blind readers can tell apart; each series has a shape of its own besides.
STYLES = (
    ("#0072B2", "o"), ("#D55E00", "s"), ("#009E73", "^"), ("#CC79A7", "D"), ("#E69F00", "v"), ("#56B4E9", "P"),
)  # fmt: skip
EXACT, REFERENCE, FAINT = "#222222", "#555555", "#8a8a8a"


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
            figure.savefig(unfinished, format=kind, dpi=DPI)
    return path
