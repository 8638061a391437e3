"""Draws a sweep's runs as one table that fits the terminal."""

import os
from collections.abc import Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alignlab.io.text import printable
from alignlab.runs.overview import RunState
from alignlab.runs.progress import clock

BAR_WIDTH, BAR_FROM, METRICS_FROM = 12, 90, 60
"""Columns of a bar, and of the narrowest terminals that have room for one, and for metrics."""
STYLES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "bold", "waiting": "dim"}
FRAME_LINES = 7
"""Frame, titles, two lines of caption, and one line of what is said above."""
LEFT_OUT_FIRST = ("waiting", "done", "interrupted", "failed", "running")


def overview_table(states: Sequence[RunState], summary: str, size: os.terminal_size) -> Table:
    """One row a run: stage, progress, time, and the last metrics or the error.

    Runs at work and failed ones are shown first where not all fit.

    Args:
        states: of the runs.
        summary: the caption.
        size: of the terminal.
    """
    has_bar, has_metrics = size.columns >= BAR_FROM, size.columns >= METRICS_FROM
    shown = _fitting(states, max(1, size.lines - FRAME_LINES))
    hidden = f"; {len(states) - len(shown)} more not shown" if len(shown) < len(states) else ""
    table = Table(caption=Text(printable(summary + hidden)), caption_justify="left", width=size.columns - 1)
    table.add_column("run", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", ratio=3)
    if has_bar:
        table.add_column("", no_wrap=True, width=BAR_WIDTH)
    table.add_column("steps", no_wrap=True, justify="right")
    table.add_column("time", no_wrap=True, justify="right")
    if has_metrics:
        table.add_column("last metrics", no_wrap=True, overflow="ellipsis", ratio=5)
    for state in shown:
        table.add_row(*_cells(state, has_bar=has_bar)[: len(table.columns)])
    return table


def _fitting(states: Sequence[RunState], most: int) -> list[RunState]:
    """As many as fit, in their order."""
    by_need = sorted(range(len(states)), key=lambda index: -LEFT_OUT_FIRST.index(states[index].status))
    return [states[index] for index in sorted(by_need[:most])]


def _cells(state: RunState, *, has_bar: bool) -> list[Text | ProgressBar]:
    style, now = STYLES[state.status], state.now
    is_counted = state.status == "running" and now.total > 0
    stage = now.stage or "starts" if state.status == "running" else state.status
    cells: list[Text | ProgressBar] = [_text(state.name, style), _text(stage, style)]
    if has_bar:
        cells.append(ProgressBar(now.total, now.done, width=BAR_WIDTH) if is_counted else Text())
    cells += [_text(f"{now.done}/{now.total}" if is_counted else ""), _text(_time(state))]
    metrics = ", ".join(f"{name} {value:.3g}" for name, value in state.metrics.items())
    cells.append(_text(metrics) if now.error is None else _text(now.error, style))
    return cells


def _time(state: RunState) -> str:
    if state.seconds is not None:
        return f"took {clock(state.seconds)}"
    return "" if state.status != "running" or state.now.left is None else f"{clock(state.now.left)} left"


def _text(text: str, style: str = "") -> Text:
    """Text that may hold anything: no markup, no control characters, one line."""
    return Text(printable(text), style=style)
