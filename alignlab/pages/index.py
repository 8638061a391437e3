"""index.html of a root of runs: every front and run below it, by relative links, so that the folder can be served."""

import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from urllib.parse import quote

from alignlab.pages.parts import Cell, Column, Table, number, numbers
from alignlab.pages.shell import Link, write_page
from alignlab.runs.policy import policy_run
from alignlab.runs.result import RESULT, RunResult, read_result

INDEX = "index.html"
FRONT = "front.csv"
"""A folder with this file holds a front."""
COMPARISON = "comparison.json"
"""A folder with this file holds a comparison of course corrections."""
LONGEST_ERROR = 120
"""Characters of an error in the list."""
OWN = "index"
"""The algorithm that writes the page; its own runs are no news."""
_PASSED = ("adapter", "checkpoints", "model", "reward", "stage", "records", "wandb", "published")
"""Folders of a run that hold no other run."""


@dataclass(frozen=True)
class Indexed:
    """What the page lists."""

    path: Path
    runs: int
    fronts: int


def index_link(root: Path, folder: Path) -> list[Link]:
    """The link of a page to the list of all runs; none where the page lies outside of the root.

    Args:
        root: of the runs.
        folder: of the page.
    """
    root, folder = root.resolve(), folder.resolve()  # a link's own `..` leads elsewhere
    return [Link("all runs", os.path.relpath(root / INDEX, folder))] if folder.is_relative_to(root) else []


def write_index(root: Path) -> Indexed:
    """Write index.html into a root of runs, atomically; what it lists.

    Args:
        root: an existing folder with runs below it.
    """
    folders = list(_folders(root))
    fronts = [folder for folder in folders if _is_front(folder)]
    runs = [folder for folder in folders if (folder / RESULT).is_file() and folder not in fronts]
    results = [(folder, read_result(folder)) for folder in runs]
    listed = [(folder, one) for folder, one in results if one is None or one.algorithm != OWN]
    path = write_page(
        root / INDEX,
        "index.html.j2",
        title=f"Runs in {root.resolve().name}",
        fronts=Table(
            [Column("front or comparison", False), "policies", Column("written", False), Column("files", False)],
            [_front_row(folder, root) for folder in fronts],
        ),
        runs=Table(
            [
                *(Column(name, False) for name in ("run", "page", "algorithm", "w")),
                "seed",
                Column("objectives: mean and 95\N{NO-BREAK SPACE}% interval", False),
                Column("status", False),
                "seconds",
                *(Column(name, False) for name in ("model", "data")),
            ],
            [_run_row(folder, one, root) for folder, one in listed],
        ),
    )
    return Indexed(path, len(listed), len(fronts))


def _folders(root: Path) -> Iterator[Path]:
    """Every folder below the root that may hold a run, sorted; links are not followed."""
    for folder, names, _ in os.walk(root):
        inside = (Path(folder) / RESULT).is_file()
        names[:] = sorted(name for name in names if not name.startswith(".") and not (inside and name in _PASSED))
        yield Path(folder)


def _href(path: Path, root: Path) -> str:
    return "./" + quote(path.relative_to(root).as_posix())


def _is_front(folder: Path) -> bool:
    return (folder / FRONT).is_file() or (folder / COMPARISON).is_file()


def _front_row(folder: Path, root: Path) -> tuple[object, ...]:
    name = folder.relative_to(root).as_posix()
    known = ("front.html", INDEX, "front.png", "corr.png", FRONT, "front.json", COMPARISON)
    files = [file for file in known if (folder / file).is_file()]
    record = folder / (FRONT if FRONT in files else COMPARISON)
    written = datetime.fromtimestamp(record.stat().st_mtime, UTC).strftime("%Y-%m-%d %H:%M UTC")
    return Cell(name, _href(folder / files[0], root)), _policies(record), written, ", ".join(files)


def _policies(record: Path) -> int | None:
    """How many policies a front or a comparison is of; None where its file cannot be read."""
    text = record.read_text(encoding="utf-8", errors="replace")
    if record.name == FRONT:
        return max(0, len(text.splitlines()) - 1)
    try:
        return len(json.loads(text)["runs"])
    except (ValueError, KeyError, TypeError, RecursionError):
        return None


def _run_row(folder: Path, result: RunResult | None, root: Path) -> tuple[object, ...]:
    first = Cell(folder.relative_to(root).as_posix(), _href(folder, root) + "/")
    if result is None:
        return first, "-", "-", "-", "-", "-", f"unreadable: {RESULT}", "-", "-", "-"
    pages = [name for name in result.artifacts.values() if str(name).endswith(".html")]
    page = Cell("open", _href(folder / pages[0], root)) if pages else "-"
    status = result.status if result.error is None else f"{result.status}: {_short(result.error)}"
    seed = "-" if result.seed is None else result.seed
    seconds = result.seconds.get("total")
    taken = "-" if seconds is None else number(seconds, 1)
    row = first, page, _algorithm(folder, result, root), _w(result), seed, _objectives(result)
    return *row, status, taken, result.model, result.dataset or "-"


def _algorithm(folder: Path, result: RunResult, root: Path) -> Cell:
    """The algorithm; of an evaluation also the policy, as a link to the run that made it."""
    policy = result.extra.get("policy")
    if not isinstance(policy, dict):
        return Cell(result.algorithm)
    made = policy_run(folder, result.to_json())
    path = Path(os.path.relpath(made, root))
    if made == folder or ".." in path.parts:
        return Cell(f"{result.algorithm}: {policy.get('algorithm') or 'an adapter'}")
    return Cell(f"{result.algorithm}: {path.as_posix()}", _href(root / path, root) + "/")


def _w(result: RunResult) -> object:
    """The weight, with its objective's name where one alone has any."""
    if not isinstance(result.w, int | float):
        return result.w or "-"
    weights = result.weights if isinstance(result.weights, dict) else {}
    weighing = [name for name, weight in weights.items() if weight]
    return f"{result.w:g} ({weighing[0]})" if len(weighing) == 1 else f"{result.w:g}"


def _short(error: str) -> str:
    """An error that leaves room for the other runs; its own folder has the rest."""
    return error if len(error) <= LONGEST_ERROR else f"{error[: LONGEST_ERROR - 1]}…"


def _objectives(result: RunResult) -> str:
    """The mean of each axis with its interval; a line breaks between two axes only."""
    found = []
    for axis in result.axes.values():
        record = result.metrics.get(axis)
        if isinstance(record, dict):
            mean, *ends = numbers([record.get("mean"), *(record.get("ci95") or ())], 2)
            shown = f"{axis} {mean}" + (f" [{', '.join(ends)}]" if ends else "")
            found.append(shown.replace(" ", "\N{NO-BREAK SPACE}"))
    return "; ".join(found) or "-"
