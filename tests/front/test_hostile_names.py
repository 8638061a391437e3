"""The hostile strings as prompt, response, name, setting and error: no formula in the CSV, no escape in a terminal."""

import csv
import io
import json

import pytest
from rich.console import Console

from alignlab.front.collect import collect
from alignlab.front.table import front_table, write_csv
from alignlab.runs import progress
from support.fronts import write_run
from support.pages import HOSTILE

CONTROLS = set("\x00\x07\x08\x1b\u202e\u2066\u2069")
FORMULA = ("=", "+", "@", "\t", "\r")


@pytest.fixture
def collection(tmp_path):
    """Runs whose names, settings and texts are hostile, and one that failed with each of the strings."""
    samples = [(text, text, {"helpful": float(index), "safe": 1.0}) for index, text in enumerate(HOSTILE)]
    names = [f"{text[:40]} {index}".replace("/", "_").replace("\0", "") for index, text in enumerate(HOSTILE)]
    runs = [
        write_run(tmp_path / name, w=(index + 1) / 30, samples=samples[:2], recipe={"x": text})
        for index, (name, text) in enumerate(zip(names, HOSTILE, strict=True))
    ]
    for index, text in enumerate(HOSTILE):
        runs.append(tmp_path / f"failed {names[index]}")
        runs[-1].mkdir()
        record = {"status": "failed", "algorithm": text[:50], "error": text}
        (runs[-1] / "result.json").write_text(json.dumps(record))
    return collect(runs)


def is_number(cell):
    try:
        float(cell)
    except ValueError:
        return False
    return True


def test_no_cell_of_the_csv_is_a_formula_or_acts_in_a_terminal(tmp_path, collection):
    text = write_csv(collection, tmp_path / "front.csv").read_text()
    rows = list(csv.reader(io.StringIO(text)))
    assert len(rows) == 1 + 2 * len(HOSTILE), "no string breaks a row"
    cells = [cell for row in rows for cell in row]
    assert [cell for cell in cells if cell.startswith((*FORMULA, "-")) and not is_number(cell)] == []
    assert not CONTROLS & set("".join(cell for row in rows for cell in row[1:])), "a folder's name alone stays as it is"
    assert any(cell.startswith("'=HYPERLINK") for cell in cells), "the control: one would be"


def test_the_table_and_what_is_said_have_no_escape(collection, monkeypatch):
    shown = Console(file=io.StringIO(), force_terminal=True, color_system=None, width=300)
    shown.print(front_table(collection))
    monkeypatch.setattr(progress, "console", shown)
    for text in HOSTILE:
        progress.say(text)
    printed = shown.file.getvalue()
    assert not CONTROLS & set(printed)
    assert "\\x1b[31mred" in printed, "the control: it was there"
