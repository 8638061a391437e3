"""Tables in terminals of every width: no word is cut, and no row takes a screen."""

import io

import pytest
from rich.console import Console
from rich.table import Table
from rich.text import Text

from alignlab.runs.tables import Fitted


def front():
    """As a sweep's: two axes, what else is known, a failed run with a long error."""
    table = Table(caption="mean ± half of the 95 % interval")
    table.add_column("w", justify="right", no_wrap=True)
    for title in ("helpful", "safe", "KL to\nreference", "attained\nshare", "well-\nformed"):
        table.add_column(title, justify="right")
    table.add_column("status", min_width=24)
    for w in ("0.3", "0.34, 0.33, 0.33"):
        cells = (w, "1.17 ±0.32", "-0.31 ±0.35", "0.01 ±0.00", "0.43 ±1.92", "0.96 [0.86, 1.00]", "done")
        table.add_row(*map(Text, cells))
    table.add_row("0.7", "-", "-", "-", "-", "-", Text(f"failed: [red]{' long error' * 15}"))
    return table


def shown(table, width):
    console = Console(file=io.StringIO(), width=width, highlight=False)
    console.print(table)
    return console.file.getvalue()


@pytest.mark.parametrize("width", [30, 40, 60, 80, 100, 120, 200])
def test_no_word_is_cut_at_any_width(width):
    text = shown(Fitted(front()), width)
    lines = text.splitlines()
    assert max(map(len, lines)) <= width
    assert "…" not in text
    for word in ("helpful", "reference", "attained", "±0.32", "-0.31", "1.00]", "[red]", "interval"):
        assert word in text, word
    assert len(lines) < 45
    assert ("┃" in text) == (width >= 100)


def test_the_control_is_cut():
    assert "…" in shown(front(), 60)


def test_a_narrow_terminal_shows_a_block_a_row():
    lines = [line.rstrip() for line in shown(Fitted(front()), 40).splitlines()]
    assert lines[:8] == [
        "w                0.3",
        "helpful          1.17 ±0.32",
        "safe             -0.31 ±0.35",
        "KL to reference  0.01 ±0.00",
        "attained share   0.43 ±1.92",
        "well-formed      0.96 [0.86, 1.00]",
        "status           done",
        "",
    ]
    assert "helpful  -" not in "\n".join(lines), "a dash takes no line"


def test_a_wide_terminal_shows_the_table_as_it_is():
    assert shown(Fitted(front()), 200) == shown(front(), 200)
