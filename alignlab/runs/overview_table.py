"""Draws a sweep's runs as one table that fits the terminal."""

import os
from collections.abc import Sequence

from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from alignlab.io.text import printable
from alignlab.runs.overview import RunState
from alignlab.runs.progress import clock

BAR_WIDTH, BAR_FROM, METRICS_FROM, FRAME_FROM = 12, 90, 76, 56
"""Columns of a bar, and of the narrowest terminals that have room for one, for metrics, and for a frame."""
STYLES = {"done": "green", "failed": "red", "interrupted": "yellow", "running": "bold", "waiting": "dim"}
FRAME_LINES = 7
"""Frame, titles, two lines of caption, and one line of what is said above."""
LEFT_OUT_FIRST = ("waiting", "done", "interrupted", "failed", "running")


def overview_table(states: Sequence[RunState], summary: str, size: os.terminal_size) -> Table:
    """One row a run: stage, progress, time, and the last metrics or the error; only run and state where it is narrow.

    Runs at work and failed ones are shown first where not all fit.

    Args:
        states: of the runs.
        summary: the caption.
        size: of the terminal.
    """
    has_bar, has_metrics = size.columns >= BAR_FROM, size.columns >= METRICS_FROM
    shown = _fitting(states, max(1, size.lines - FRAME_LINES))
    hidden = f"; {len(states) - len(shown)} more not shown" if len(shown) < len(states) else ""
    caption = Text(printable(summary + hidden))
    if size.columns < FRAME_FROM:
        return _narrow_table(shown, caption, size.columns - 1)
    table = Table(caption=caption, caption_justify="left", width=size.columns - 1)
    table.add_column("run", no_wrap=True, overflow="ellipsis", ratio=3)
    table.add_column("stage", no_wrap=True, overflow="ellipsis", ratio=3)
    if has_bar:
        table.add_column("", no_wrap=True, width=BAR_WIDTH)
    table.add_column("steps", no_wrap=True, justify="right")
    table.add_column("time", no_wrap=True, justify="right")
    if has_metrics:
        table.add_column("last metrics", no_wrap=True, overflow="ellipsis", ratio=5)
    for state in shown:
        table.add_row(*_cells(state, has_bar=has_bar, has_metrics=has_metrics)[: len(table.columns)])
    return table


def _narrow_table(states: Sequence[RunState], caption: Text, width: int) -> Table:
    """Run and state without a frame; of a run at work first how far it is."""
    table = Table(caption=caption, caption_justify="left", width=width, box=None, padding=(0, 1, 0, 0))
    table.add_column("run", no_wrap=True, overflow="ellipsis", ratio=2)
    table.add_column("state", no_wrap=True, overflow="ellipsis", ratio=3)
    for state in states:
        table.add_row(_text(state.name, STYLES[state.status]), _text(_state(state), STYLES[state.status]))
    return table


def _state(state: RunState) -> str:
    """`11 %, 2:10 left, training`, `done, took 5:01` or `failed: out of memory`."""
    if state.now.error is not None:
        return f"{state.status}: {state.now.error}"
    if state.status != "running":
        return ", ".join(filter(None, [state.status, _time(state)]))
    done = f"{100 * state.now.done // state.now.total} %" if state.now.total else ""
    return ", ".join(filter(None, [done, _time(state), state.now.stage or "starts"]))


def _fitting(states: Sequence[RunState], most: int) -> list[RunState]:
    """As many as fit, in their order."""
    by_need = sorted(range(len(states)), key=lambda index: -LEFT_OUT_FIRST.index(states[index].status))
    return [states[index] for index in sorted(by_need[:most])]


def _cells(state: RunState, *, has_bar: bool, has_metrics: bool) -> list[Text | ProgressBar]:
    style, now = STYLES[state.status], state.now
    is_counted = state.status == "running" and now.total > 0
    stage = now.stage or "starts" if state.status == "running" else state.status
    if now.error is not None and not has_metrics:  # which have the error's place
        stage = f"{stage}: {now.error}"
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
