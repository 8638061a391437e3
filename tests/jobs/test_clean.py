"""`algorithm=clean` lists and removes what nothing needs, and nothing else."""

import json
import os

import numpy as np
import pytest

from alignlab.cli import main
from alignlab.engine.cache.table import ScoreTable, write_table
from alignlab.io.hashes import hashes_below
from alignlab.runs.result import RunResult, write_result

LOST, KNOWN = "1" * 16, "2" * 16


def fill(file, text="x"):
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text)
    return file


def age(path):
    os.utime(path, (1, 1))
    return path


@pytest.fixture
def roots(tmp_path):
    """Two runs and a cache; (what nothing needs, what stays)."""
    runs, cache = tmp_path / "runs", tmp_path / "cache"
    done, killed = runs / "modpo" / "one", runs / "modpo" / "two"
    stays = [
        fill(done / "adapter" / "adapter_model.safetensors"),
        fill(done / "adapter" / ".hidden.deadbeef"),  # no time has passed
        fill(killed / "checkpoints" / "checkpoint-2" / "optimizer.pt"),
        fill(cache / "references" / "tiny-a" / "alignlab.json"),
        fill(cache / "references" / ".tiny-b.checkpoints" / "checkpoint-200" / "optimizer.pt"),
        age(fill(done / "named" / ".odd.01234567")),  # looks like garbage, but the run names it
    ]
    goes = [
        fill(done / "checkpoints" / "checkpoint-2" / "optimizer.pt").parents[1],
        fill(done / "scores.jsonl.damaged"),
        age(fill(done / ".adapter.01234567")),
        age(fill(cache / "references" / ".tiny-c.89abcdef" / "model.safetensors").parent),
        fill(cache / "references" / ".tiny-a.checkpoints" / "checkpoint-200" / "optimizer.pt").parents[1],
    ]
    for index, scorer in enumerate((f"{LOST}:float32:sdpa", f"{KNOWN}:float32:sdpa+0123", "probe:0123")):
        path = cache / "scores" / f"{index}.parquet"
        path.parent.mkdir(exist_ok=True)
        write_table(path, scorer, ScoreTable(np.array([b"a" * 16], "S16"), np.ones(1)))
        (stays if index else goes).append(path)
    files = hashes_below(done, ["adapter"]) | {"named/.odd.01234567": "digest"}
    write_result(done, RunResult("done", "modpo", files=files, inputs={"model": KNOWN}))
    write_result(killed, RunResult("interrupted", "modpo"))
    return tmp_path, goes, stays


def clean(root, *overrides):
    return main(["algorithm=clean", f"paths.runs={root}/runs", f"paths.cache={root}/cache", *overrides])


def listed(root):
    files = (root / "runs" / "clean").rglob("result.json")
    file = max(files, key=lambda file: file.stat().st_mtime_ns)
    return {one["path"] for one in json.loads(file.read_text())["garbage"]}


def test_it_lists_and_then_removes_and_then_finds_nothing(roots, capsys):
    root, goes, stays = roots
    assert clean(root) == 0
    assert listed(root) == set(map(str, goes))
    assert all(path.exists() for path in (*goes, *stays)), "listing removes nothing"
    assert "algorithm.remove=true" in capsys.readouterr().out
    assert clean(root, "algorithm.remove=true") == 0
    assert not any(path.exists() for path in goes)
    assert all(path.exists() for path in stays)
    assert clean(root) == 0
    assert listed(root) == set()


def test_a_run_in_use_is_left_alone(roots):
    from alignlab.runs.folder import claim
    from alignlab.runs.garbage import garbage_of

    root, goes, _ = roots
    folder = root / "runs" / "modpo" / "one"
    assert goes[0] in {one.path for one in garbage_of(root / "runs", root / "cache")}, "control"
    with claim(folder, wait=False):
        assert goes[0] not in {one.path for one in garbage_of(root / "runs", root / "cache")}
