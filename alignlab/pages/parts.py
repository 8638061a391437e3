"""Parts that all pages share: tables of named columns, and facts as name and value."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.pages.text import visible

UNKNOWN = "unknown"
DIGITS = 3
"""Decimals of a number."""
MOST_PLACES = 9
"""Decimals of a small one."""


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

    @property
    def parts(self) -> list[str]:
        """The text in pieces: a line of a path breaks between its folders only."""
        return [part for part in re.split(r"(?<=/)", self.text) if part]


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
    return numbers([value], digits)[0]


def numbers(values: Sequence[float | None], digits: int = DIGITS) -> list[str]:
    """Numbers that stand beside each other, all to the same decimals: the largest one's; `unknown` for None."""
    most = max((abs(value) for value in values if value is not None), default=0.0)
    places = digits
    if 0 < most < 10**-digits:
        places = min(digits - 1 - math.floor(math.log10(most)), MOST_PLACES)
    shown = [UNKNOWN if value is None else f"{value:.{places}f}" for value in values]
    return [text.removeprefix("-") if set(text) <= set("-0.") else text for text in shown]


def interval(record: Mapping[str, Any] | None) -> tuple[str, str, object]:
    """Mean, 95 % interval and n of a metric of result.json, as three cells."""
    if record is None:
        return UNKNOWN, "-", "-"
    bounds = record.get("ci95")
    mean, *shown = numbers([record.get("mean"), *_known(bounds)])
    return mean, " .. ".join(shown) or "-", record.get("n", 0)


def ends(bounds: Sequence[float | None] | None) -> str:
    """Both ends of an interval; `-` where there is none."""
    return " .. ".join(numbers(_known(bounds))) or "-"


def _known(bounds: Sequence[float | None] | None) -> list[float | None]:
    """Both ends; none where one of them is unknown."""
    return [] if bounds is None or None in bounds else list(bounds)


def key_parts(name: str) -> list[str]:
    """A name in pieces: a line of a dotted key breaks behind a dot or an underscore."""
    return [part for part in re.split(r"(?<=[._])", name) if part]


def facts(values: Mapping[str, object] | Iterable[tuple[str, object]]) -> list[tuple[str, Cell]]:
    """Name and value, for the template's list of facts."""
    pairs = values.items() if isinstance(values, Mapping) else values
    return [(visible(name), cell(value)) for name, value in pairs]
