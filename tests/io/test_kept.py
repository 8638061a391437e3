"""What the cache keeps: made once, only read when warm, checked whenever it is taken up."""

import json
import subprocess
import sys

import pytest

from alignlab.errors import ConfigError
from alignlab.io import kept
from alignlab.io.kept import is_writable, keep, record_hash, unlike_its_hash
from alignlab.io.records import Records, is_finished

SCRIPT = """
import json, os, sys
from pathlib import Path
import torch
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.cache.states import StateCache
from alignlab.errors import ConfigError
from alignlab.io.kept import keep, unlike_its_hash
from alignlab.judges.base import Answer
from alignlab.judges.store import AnswerStore
from alignlab.models.prompts import Encoded

root = Path(sys.argv[1])
if os.getuid() == 0:
    os.seteuid(65534)
def refuse():
    raise AssertionError("made again")
rows = [Encoded([1], [number]) for number in range(3)]
keep(root / "toy" / "pairs.jsonl", cache=root, fault=unlike_its_hash, make=refuse, say=print)
cache = ScoreCache(root / "scores")
known = cache.scores("one", rows[:2], None, name="x").tolist()
asked = []
def compute(rows):
    asked.append(len(rows))
    return torch.full((len(rows),), 7.0)
more = [cache.scores("one", rows, compute, name="x").tolist() for _ in range(2)]
states = StateCache(root / "states").states("one", rows, lambda rows: torch.ones(len(rows), 2)).tolist()
store = AnswerStore(root / "verdicts")
store.put("text", Answer(True, "", 1))
try:
    keep(root / "toy" / "others.jsonl", cache=root, fault=unlike_its_hash, make=refuse, say=print)
except ConfigError as error:
    refused = str(error)
print(json.dumps([known, more, asked, states, store.get("text").corrected, refused]))
"""


@pytest.fixture
def others(tmp_path):
    """A warm cache that belongs to somebody else."""
    import torch

    from alignlab.engine.cache.scores import ScoreCache
    from alignlab.models.prompts import Encoded

    root = tmp_path / "cache"
    (root / "toy").mkdir(parents=True)
    (root / "toy" / "pairs.jsonl").write_text("{}\n")
    record_hash(root / "toy" / "pairs.jsonl")
    rows = [Encoded([1], [number]) for number in range(2)]
    ScoreCache(root / "scores").scores("one", rows, lambda rows: torch.arange(2.0), name="x")
    for folder in (root, root / "toy", root / "scores"):
        folder.chmod(0o555)
    for folder in (tmp_path, *tmp_path.parents):  # pytest's own are closed to others
        if folder.stat().st_mode & 0o005 != 0o005:
            folder.chmod(0o755)
    yield root
    for folder in (root, root / "toy", root / "scores"):
        folder.chmod(0o755)


def test_a_warm_cache_of_another_user_is_read(others):
    before = sorted(path.name for path in others.rglob("*"))
    done = subprocess.run([sys.executable, "-c", SCRIPT, str(others)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    known, more, asked, states, verdict, refused = json.loads(done.stdout.splitlines()[-1])
    assert (known, more, asked) == ([0, 1], [[0, 1, 7]] * 2, [1]), "what is missing is computed once, and not kept"
    assert (states, verdict) == ([[1, 1]] * 3, True)
    assert refused.startswith(f"paths.cache={others}: ")
    assert "not kept" in done.stdout
    assert sorted(path.name for path in others.rglob("*")) == before


def test_a_folder_is_writable_where_it_can_be_made(tmp_path):
    assert is_writable(tmp_path / "not" / "yet")
    (tmp_path / "file").write_text("")
    assert not is_writable(tmp_path / "file" / "below")


def test_it_is_made_once_and_again_where_it_is_damaged(tmp_path):
    path, said, made = tmp_path / "toy" / "pairs.jsonl", [], []

    def make():
        made.append(1)
        path.write_text("rows\n")
        record_hash(path)

    for _ in range(2):
        keep(path, cache=tmp_path, fault=unlike_its_hash, make=make, say=said.append)
    assert (len(made), said) == (1, [])
    path.write_text("rowt\n")
    left = [tmp_path / "toy" / name for name in (".pairs.jsonl.01234567", ".others.jsonl.01234567")]
    for file in left:  # of processes that were killed; another name may be somebody's work
        file.write_text("")
    keep(path, cache=tmp_path, fault=unlike_its_hash, make=make, say=said.append)
    assert (len(made), path.read_text()) == (2, "rows\n")
    assert said == [f"{path}: was changed or damaged since it was saved; made again"]
    assert [file.exists() for file in left] == [False, True]


def test_a_cache_that_is_a_file_is_named(tmp_path):
    (tmp_path / "cache").write_text("")
    with pytest.raises(ConfigError, match=r"^paths\.cache="):
        keep(tmp_path / "cache" / "a" / "b", cache=tmp_path / "cache", fault=unlike_its_hash, make=print, say=print)


def test_an_error_while_it_is_made_is_not_the_caches(tmp_path):
    def fail():
        raise PermissionError("elsewhere")

    with pytest.raises(PermissionError, match="elsewhere"):
        keep(tmp_path / "a", cache=tmp_path, fault=unlike_its_hash, make=fail, say=print)


def test_the_hash_is_one_that_sha256sum_checks(tmp_path):
    (tmp_path / "a").write_text("a")
    record_hash(tmp_path / "a")
    assert kept.recorded_hash(tmp_path / "a").read_text() == (
        "ca978112ca1bbdcafac231b39a23dc4da786eff8147c4e72b9807785afee48bb  a\n"
    )


def test_finished_records_are_seen_without_a_lock(tmp_path):
    path = tmp_path / "said.jsonl"
    with Records(path, ["a"], made_for={"seed": 1}) as records:
        assert not is_finished(path, made_for={"seed": 1})
        records.add({"id": "a"})
        records.finish()
    partial = tmp_path / "records" / "said.partial.jsonl"  # as a writer leaves it who is killed at the very end
    partial.write_text("")
    assert not is_finished(path, made_for={"seed": 2})
    assert partial.exists()
    assert is_finished(path, made_for={"seed": 1})
    assert not partial.exists()
    path.write_text('{"id": "b"}\n')
    assert not is_finished(path, made_for={"seed": 1})
