"""index.html: every run and front below a root, by relative links that lead somewhere."""

import json
import re

import pytest

from alignlab.cli import main
from alignlab.pages.index import write_index
from support.fronts import write_front
from support.pages import HOSTILE, check_safe


def links(page):
    return [attributes["href"] for tag, attributes in page.tags if tag == "a"]


def test_it_lists_runs_and_fronts_by_links_that_lead_somewhere(tmp_path):
    write_front(tmp_path / "modpo" / "tiny")
    front = tmp_path / "front" / "tiny" / "sweep-1"
    front.mkdir(parents=True)
    (front / "front.csv").write_text("folder\na\nb\n")
    (front / "front.html").write_text("")
    (tmp_path / "torn").mkdir()
    (tmp_path / "torn" / "result.json").write_text("{")
    inner = tmp_path / "modpo" / "tiny" / "w=0.1" / "adapter"
    inner.mkdir()
    (inner / "result.json").write_text("{}")
    found = write_index(tmp_path)
    assert (found.runs, found.fronts) == (4, 1)
    page = check_safe(found.path)
    assert len(links(page)) == 5
    assert all(href.startswith("./") for href in links(page))
    assert all((tmp_path / re.sub("%3D", "=", href)).exists() for href in links(page))
    text = " ".join(page.texts)
    assert "unreadable: result.json" in text
    assert "helpful " in text


def test_hostile_names_and_errors_stay_text(tmp_path):
    for index, text in enumerate(HOSTILE[:-1]):
        folder = tmp_path / f"{index}{text}".replace("/", "_").replace("\0", "")[:90]
        folder.mkdir()
        record = {"status": "failed", "algorithm": text, "model": text, "dataset": text, "error": text, "w": 0.5}
        (folder / "result.json").write_text(json.dumps({**record, "artifacts": {"page": "x.html"}}))
    page = check_safe(write_index(tmp_path).path)
    assert len(links(page)) == 2 * (len(HOSTILE) - 1)
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe"} == set()


@pytest.mark.parametrize("times", [1, 2])
def test_the_command(tmp_path, capsys, times):
    write_front(tmp_path / "runs" / "modpo")
    for _ in range(times):
        assert main(["algorithm=index", f"paths.runs={tmp_path}/runs"]) == 0
    assert "3 runs, 0 fronts" in capsys.readouterr().out
    assert (tmp_path / "runs" / "index.html").exists()


def test_an_empty_root_is_said(tmp_path, capsys):
    assert main(["algorithm=index", f"paths.runs={tmp_path}/none"]) == 2
    assert f"paths.runs={tmp_path}/none: no run found" in capsys.readouterr().err
