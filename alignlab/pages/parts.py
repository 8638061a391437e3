"""Parts that all pages share: tables of named columns, and facts as name and value."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.pages.text import visible

UNKNOWN = "unknown"


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


def number(value: float | None, digits: int = 3) -> str:
    """A number to so many decimals, small ones to as many figures; `unknown` for None."""
    if value is None:
        return UNKNOWN
    return f"{value:.{digits}f}" if value == 0 or abs(value) >= 10**-digits else f"{value:.{digits}g}"


def interval(record: Mapping[str, Any] | None) -> tuple[str, str, object]:
    """Mean, 95 % interval and n of a metric of result.json, as three cells."""
    if record is None:
        return UNKNOWN, "-", "-"
    ends = record.get("ci95")
    between = "-" if ends is None or None in ends else f"{number(ends[0])} .. {number(ends[1])}"
    return number(record.get("mean")), between, record.get("n", 0)


def facts(values: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[tuple[str, Cell]]:
    """Name and value, for the template's list of facts."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return [(visible(name), cell(value)) for name, value in pairs]
