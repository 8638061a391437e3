"""index.html: every run and front below a root, by relative links that lead somewhere."""

import json
import re

import pytest

from alignlab.cli import main
from alignlab.pages.index import index_link, write_index
from support.fronts import write_evaluated, write_front, write_run
from support.pages import HOSTILE, check_safe


def write_front_at(root):
    """A root with one run and one front."""
    write_front(root / "modpo", ws=(0.5,))
    (root / "front").mkdir()
    (root / "front" / "front.csv").write_text("folder\na\n")


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
    heads = re.findall(r"<th[^>]*>([^<]*)</th>", found.path.read_text())
    assert (
        heads[4:].index("w")
        < heads[4:].index("objectives: mean and 95\N{NO-BREAK SPACE}% interval")
        < heads[4:].index("status")
    )
    assert heads[-2:] == ["model", "data"], "names that the path of a run has already come last"
    assert re.search("helpful\N{NO-BREAK SPACE}-?[0-9.]+\N{NO-BREAK SPACE}\\[", text), (
        "a mean stays beside its interval"
    )


def test_an_evaluation_names_its_policys_run_and_a_reward_its_objective(tmp_path):
    write_evaluated(tmp_path)
    reward = {"algorithm": "reward_model", "axes": {}}
    samples = [("prompt", "answer", {"helpful": 1.0, "safe": -0.0004})]
    for name, weights in (("a", {"better": 1.0, "safer": 0.0}), ("b", {"better": 0.0, "safer": 1.0})):
        write_run(tmp_path / "reward_model" / name, w=1.0, samples=samples, weights=weights, **reward)
    page = check_safe(write_index(tmp_path).path)
    text = "".join(page.texts)
    assert "evaluate: modpo/w=0.1" in text
    assert "evaluate: reference" in text
    assert {"evaluate: modpo/", "evaluate/", "w=0.1"} <= set(page.texts), "a line breaks between folders"
    assert links(page).count("./modpo/w%3D0.9/") == 2, "its own row, and its evaluation's"
    assert "1 (better)" in text
    assert "1 (safer)" in text


def test_hostile_names_and_errors_stay_text(tmp_path):
    for index, text in enumerate(HOSTILE[:-1]):
        folder = tmp_path / f"{index}{text}".replace("/", "_").replace("\0", "")[:90]
        folder.mkdir()
        record = {"status": "failed", "algorithm": text, "model": text, "dataset": text, "error": text, "w": 0.5}
        (folder / "result.json").write_text(json.dumps({**record, "artifacts": {"page": "x.html"}}))
    page = check_safe(write_index(tmp_path).path)
    assert len(links(page)) == 2 * (len(HOSTILE) - 1)
    assert {tag for tag, _ in page.tags} & {"script", "img", "iframe"} == set()


def test_a_long_error_is_cut(tmp_path):
    write_front(tmp_path, ws=(0.5,), status="failed", error="RuntimeError: " + "word " * 200)
    text = " ".join(check_safe(write_index(tmp_path).path).texts)
    assert "failed: RuntimeError: word" in text
    assert text.count("word") < 25
    assert "…" in text


def test_a_page_links_to_the_list_of_its_root(tmp_path):
    root = tmp_path / "disk" / "runs"
    folder = root / "front" / "sweep"
    folder.mkdir(parents=True)
    (tmp_path / "here" / "deep").mkdir(parents=True)
    linked = tmp_path / "here" / "deep" / "runs"
    linked.symlink_to(root, target_is_directory=True)
    for above, page in ((root, folder), (linked, folder), (root, linked / "front" / "sweep")):
        (link,) = index_link(above, page)
        assert link.href == "../../index.html"
    assert index_link(root / "front", tmp_path / "here") == []


@pytest.mark.parametrize("times", [1, 2])
def test_the_command(tmp_path, capsys, times):
    write_front(tmp_path / "runs" / "modpo")
    for _ in range(times):
        assert main(["algorithm=index", f"paths.runs={tmp_path}/runs"]) == 0
    assert "3 runs, 0 fronts" in capsys.readouterr().out
    write_front_at(tmp_path / "one")
    assert main(["algorithm=index", f"paths.runs={tmp_path}/one"]) == 0
    said = capsys.readouterr().out
    assert "1 run, 1 front:" in said
    assert f"page: {tmp_path}/one/index.html" in said
    assert (tmp_path / "runs" / "index.html").exists()


def test_an_empty_root_is_said(tmp_path, capsys):
    assert main(["algorithm=index", f"paths.runs={tmp_path}/none"]) == 2
    assert f"paths.runs={tmp_path}/none: no run found" in capsys.readouterr().err
