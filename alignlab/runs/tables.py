"""Prints a table where its columns fit the terminal, and one block a row where they do not."""

from collections.abc import Iterable

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.measure import Measurement
from rich.table import Column, Table
from rich.text import Text

from alignlab.runs.progress import console

UNLIMITED = 10_000
UNKNOWN = ("", "-")
"""Cells that a block leaves out."""


def print_table(table: Table) -> None:
    """Print a table in the form that this terminal is wide enough for.

    Args:
        table: each of its cells text.
    """
    console.print(Fitted(table))


class Fitted:
    """A table as it is, or, where words of it would be cut, as blocks: a line a cell, each after its column's title."""

    def __init__(self, table: Table) -> None:
        self.table = table

    def __rich_console__(self, console: Console, options: ConsoleOptions) -> RenderResult:
        """The form that fits the width."""
        columns = self.table.columns
        sizes = [_sizes(column, console, options.update(width=UNLIMITED)) for column in columns]
        spare = options.max_width - (3 * len(columns) + 1) - sum(narrow for narrow, _ in sizes)
        if spare < 0:
            yield from _blocks(self.table)
            return
        for column, (narrow, full) in zip(columns, sizes, strict=True):  # rich would cut words of the widest
            column.width = narrow + min(spare, full - narrow)
            spare -= column.width - narrow
        yield self.table


def _sizes(column: Column, console: Console, options: ConsoleOptions) -> tuple[int, int]:
    """Characters of a column's longest word, or line where it may not wrap, and of its longest line."""
    cells = [Measurement.get(console, options, cell) for cell in (column.header, *column.cells)]
    full = max(cell.maximum for cell in cells)
    narrow = full if column.no_wrap else max(cell.minimum for cell in cells)
    return max(narrow, column.min_width or 0), max(full, column.min_width or 0)


def _blocks(table: Table) -> Iterable[RenderableType]:
    names = [_one_line(column.header) for column in table.columns]
    for cells in zip(*(column.cells for column in table.columns), strict=True):
        known = [(name, cell) for name, cell in zip(names, cells, strict=True) if str(cell) not in UNKNOWN]
        block = Table.grid(padding=(0, 2, 0, 0))
        block.add_column(style="dim")
        block.add_column(overflow="fold")
        for name, cell in known:
            block.add_row(Text(name), _one_line_cell(cell))
        yield block
        yield Text()
    if table.caption is not None:
        yield Text(str(table.caption))


def _one_line(title: RenderableType) -> str:
    """A column's title without the breaks that make it narrow; a hyphen before one stays."""
    return str(title).strip().replace("-\n", "-").replace("\n", " ")


def _one_line_cell(cell: RenderableType) -> RenderableType:
    if not isinstance(cell, Text):
        return cell
    return Text(" ").join(cell.split("\n"))
