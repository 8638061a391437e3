"""Raw rows with their locations, as the check and the readers take them."""

import gc
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from typing import Any, NamedTuple

from alignlab.data.files import DataFile, column_names, located_rows
from alignlab.data.readers.prompt_columns import CHANGES_THE_REQUEST, says_something
from alignlab.data.report import BadRow, Report
from alignlab.errors import ConfigError, nearest


@contextmanager
def without_collection() -> Iterator[None]:
    """No garbage collection: a million live texts are walked again and again for nothing, a quarter of the time."""
    was_on = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_on:
            gc.enable()


class Located(NamedTuple):
    """A raw row, or what is wrong with its line."""

    location: str
    row: dict[str, Any] | BadRow
    split: str | None


@dataclass(frozen=True)
class Columns:
    """Which columns of a source are read.

    Args:
        needed: without these no row can be used.
        one_of: a file must have one of these.
        also: read where they are there.
        published: known and of no use here; not named as unread.
        ignored: left out, as dataset.ignore says.
    """

    needed: Sequence[str]
    one_of: Sequence[str] = ()
    also: Sequence[str] = ()
    published: Sequence[str] = ()
    ignored: Sequence[str] = ()

    @cached_property
    def read(self) -> frozenset[str]:
        """Every column that is read."""
        return frozenset((*self.needed, *self.one_of, *self.also)) - set(self.ignored)

    @cached_property
    def refused(self) -> frozenset[str]:
        """Columns that would change what is asked and that are not read."""
        return frozenset(CHANGES_THE_REQUEST) - self.read - set(self.ignored)

    @property
    def wanted(self) -> list[str]:
        """What a file is asked for."""
        return sorted(self.read | self.refused)

    def check(self, shown: str, columns: Sequence[str], report: Report) -> None:
        """Refuses a file that lacks a column in all its rows; notes which of its columns are read.

        Args:
            shown: the file, for errors.
            columns: those that its rows have.
            report: takes the columns that are read and not read.
        """
        there = [name for name in columns if name not in self.ignored]
        missing = [name for name in self.needed if columns and name not in there]
        if columns and self.one_of and not set(self.one_of) & set(there):
            missing.append(self.one_of[0])
        if missing:
            lines = [f"{shown}:1 {name}: no such column; {nearest(name, there)}" for name in missing]
            raise ConfigError("\n".join(lines))
        report.columns_read.update(dict.fromkeys(name for name in there if name in self.read))
        unread = (name for name in columns if name not in self.read and name not in self.published)
        report.columns_unread.update(dict.fromkeys(unread))

    def of(self, row: dict[str, Any], location: str) -> dict[str, Any]:
        """The row without the ignored columns.

        Raises:
            ConfigError: if a column that is not read changes what is asked.
        """
        if self.ignored:
            row = {name: value for name, value in row.items() if name not in self.ignored}
        if not self.refused.isdisjoint(row):
            for name in sorted(self.refused & row.keys()):
                if says_something(row[name]):
                    meant = f"rename it to {name.lower()}, or " if name.lower() in self.read else ""
                    raise ConfigError(
                        f"{location} {name}: changes what is asked, and this kind of dataset does not read it; "
                        f"{meant}dataset.ignore=[{name}] leaves it out"
                    )
        return row


def file_rows(files: Sequence[DataFile], columns: Columns, report: Report) -> Iterator[Located]:
    """The rows of all files, in their order.

    Args:
        files: in the order in which they are read.
        columns: how a row is read.
        report: takes what was left out.

    Raises:
        ConfigError: `file:1 column: no such column` with the nearest name, for a file without rows, or for an ignored
            column that no row has.
    """
    unseen, names = set(columns.ignored), dict[str, None]()
    for file in files:
        there = column_names(file.path)
        columns.check(file.shown, there, report)
        names |= dict.fromkeys(there)
        unseen -= names.keys()
        empty = True
        for number, row in located_rows(file.path, columns.wanted):
            empty = False
            if unseen and not isinstance(row, BadRow):
                unseen -= row.keys()
            location = f"{file.shown}:{number}"
            yield Located(location, row if isinstance(row, BadRow) else columns.of(row, location), file.split)
        if empty:
            raise ConfigError(f"dataset.path={file.path}: holds no rows")
    for name in sorted(unseen):
        raise ConfigError(f"dataset.ignore=[{name}]: no row has such a column; {nearest(name, names)}")


def table_rows(table: Iterable[dict[str, Any]], name: str, split: str | None, columns: Columns) -> Iterator[Located]:
    """The rows of one split of the hub's dataset `name`.

    Args:
        table: of the hub.
        name: its hub id, for errors.
        split: its split.
        columns: how a row is read.
    """
    for number, row in enumerate(table, 1):
        location = f"{name}:{number}"
        yield Located(location, columns.of(row, location), split)
