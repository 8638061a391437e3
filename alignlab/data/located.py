"""Raw rows with their locations, as the check and the readers take them."""

import gc
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any, NamedTuple

from alignlab.data.files import DataFile, column_names, located_rows
from alignlab.data.report import BadRow
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


def file_rows(files: Sequence[DataFile], needed: Sequence[str], also: Sequence[str]) -> Iterator[Located]:
    """The rows of all files, in their order.

    Raises:
        ConfigError: `file:1 column: no such column` with the nearest name, or for a file without rows.
    """
    for file in files:
        columns = column_names(file.path)
        check_columns(file.shown, columns, needed)
        empty = True
        for number, row in located_rows(file.path, [*needed, *also]):
            empty = False
            yield Located(f"{file.shown}:{number}", row, file.split)
        if empty:
            raise ConfigError(f"dataset.path={file.path}: holds no rows")


def check_columns(shown: str, columns: Sequence[str], needed: Sequence[str]) -> None:
    """Refuses a file that lacks a column in all its rows."""
    missing = [name for name in needed if columns and name not in columns]
    if missing:
        lines = [f"{shown}:1 {name}: no such column; {nearest(name, columns)}" for name in missing]
        raise ConfigError("\n".join(lines))
