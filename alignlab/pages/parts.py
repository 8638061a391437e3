"""Parts that all pages share: tables of named columns, and facts as name and value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.pages.text import visible

UNKNOWN = "unknown"
DIGITS = 3
"""Decimals of a number."""


@dataclass(frozen=True)
class Column:
    """One column of a table."""

    title: str
    number: bool = True
    """Numbers stand to the right."""


@dataclass(frozen=True)
class Cell:
    """One cell: text, and where it leads if it is a link."""

    text: str
    href: str | None = None


@dataclass(frozen=True)
class Table:
    """A table. A cell is text, a number, None (unknown), a `Cell`, or a mean with its interval from `interval`."""

    columns: Sequence[Column | str]
    rows: Sequence[Sequence[object]]
    caption: str = ""
    shown: list[list[Cell]] = field(init=False, default_factory=list)
    heads: list[Column] = field(init=False, default_factory=list)

    def __post_init__(self) -> None:
        """Fill `heads` and `shown`, which the template reads; a string names a column of numbers.

        Raises:
            ValueError: if a row has another number of cells than there are columns.
        """
        self.heads.extend(Column(column) if isinstance(column, str) else column for column in self.columns)
        for row in self.rows:
            if len(row) != len(self.heads):
                raise ValueError(f"{len(row)} cells in a row of {len(self.heads)} columns")
            self.shown.append([cell(value) for value in row])


@dataclass(frozen=True)
class Folded:
    """Texts that nobody sees unasked."""

    summary: str
    texts: Sequence[tuple[str, str]]
    """Name and text of each, folded once more."""

    @property
    def heading(self) -> str:
        """The summary as a page shows it."""
        return visible(self.summary)

    @property
    def shown(self) -> list[tuple[str, str]]:
        """The texts as a page shows them."""
        return [(visible(name), visible(text)) for name, text in self.texts]


@dataclass(frozen=True)
class Section:
    """One part of a report: its heading, and below it in this order what it has."""

    title: str
    texts: Sequence[str] = ()
    picture: str | None = None
    """SVG as base64."""
    facts: Sequence[tuple[str, Cell]] = ()
    tables: Sequence[Table] = ()
    folded: Sequence[Folded] = ()


def cell(value: object) -> Cell:
    """A value as a page shows it: no dict, no list, no code."""
    match value:
        case Cell():
            return Cell(visible(value.text), value.href)
        case None:
            return Cell(UNKNOWN)
        case bool():
            return Cell("yes" if value else "no")
        case float():
            return Cell(number(value))
        case Mapping():
            return Cell(visible(", ".join(f"{name} {cell(one).text}" for name, one in value.items()) or "none"))
        case list() | tuple():
            return Cell(visible(", ".join(cell(one).text for one in value) or "none"))
        case _:
            return Cell(visible(value))


def number(value: float | None, digits: int = DIGITS) -> str:
    """A number to so many decimals, small ones to as many figures; `unknown` for None."""
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits else f"{value:.{digits}g}"


def interval(record: Mapping[str, Any] | None) -> tuple[str, str, object]:
    """Mean, 95 % interval and n of a metric of result.json, as three cells."""
    if record is None:
        return UNKNOWN, "-", "-"
    return number(record.get("mean")), ends(record.get("ci95")), record.get("n", 0)


def ends(bounds: Sequence[float | None] | None) -> str:
    """Both ends of an interval; `-` where there is none."""
    if bounds is None or None in bounds:
        return "-"
    known = [float(bound) for bound in bounds if bound is not None]
    if max(map(abs, known)) >= 10**-DIGITS:  # beside it a tiny end is 0
        return " .. ".join(f"{bound:.{DIGITS}f}" for bound in known)
    return " .. ".join(map(number, known))


def facts(values: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[tuple[str, Cell]]:
    """Name and value, for the template's list of facts."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return [(visible(name), cell(value)) for name, value in pairs]
