"""Files are whole or not there."""

import json
import math
import os

import pytest

from alignlab.io.atomic import new_folder, remove_unfinished, write_json, write_jsonl, write_text


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_a_text_is_written_and_nothing_else(tmp_path):
    write_text(tmp_path / "deep" / "a.txt", "grün\n")
    assert (tmp_path / "deep" / "a.txt").read_text(encoding="utf-8") == "grün\n"
    assert names(tmp_path / "deep") == ["a.txt"]


def test_others_may_read_it(tmp_path):
    write_text(tmp_path / "a", "x")
    assert (tmp_path / "a").stat().st_mode & 0o777 == 0o644


@pytest.mark.parametrize("step", ["fsync", "replace"])
def test_a_crash_leaves_the_old_content(tmp_path, monkeypatch, step):
    path = tmp_path / "a"
    write_text(path, "old")

    def crash(*_):
        raise OSError("disk full")

    monkeypatch.setattr(os, step, crash)
    with pytest.raises(OSError, match="disk full"):
        write_text(path, "new")
    assert path.read_text() == "old"
    assert names(tmp_path) == ["a"], "no half file is left beside it"


def test_writing_in_place_would_lose_it(tmp_path):
    """The control: an ordinary write that dies half-way has already destroyed the old content."""
    path = tmp_path / "a"
    path.write_text("old")
    with pytest.raises(OSError, match="disk full"), path.open("w") as stream:
        stream.write("n")
        raise OSError("disk full")
    assert path.read_text() != "old"


def test_nan_is_refused_and_the_old_json_stays(tmp_path):
    path = tmp_path / "a.json"
    write_json(path, {"x": 1})
    with pytest.raises(ValueError, match="not JSON compliant"):
        write_json(path, {"x": math.nan})
    assert json.loads(path.read_text()) == {"x": 1}


def test_one_object_a_line(tmp_path):
    rows = [{"a": "line\nbreak"}, {"a": "ü"}]
    write_jsonl(tmp_path / "a.jsonl", rows)
    assert [json.loads(line) for line in (tmp_path / "a.jsonl").read_text().splitlines()] == rows


def test_a_folder_appears_when_it_is_full(tmp_path):
    target = tmp_path / "adapter"
    with new_folder(target) as folder:
        (folder / "weights").write_text("x")
        assert not target.exists()
    assert names(tmp_path) == ["adapter"]
    assert names(target) == ["weights"]


def test_a_folder_that_fails_vanishes_and_the_old_one_stays(tmp_path):
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "weights").write_text("old")
    with pytest.raises(KeyboardInterrupt), new_folder(target) as folder:
        (folder / "weights").write_text("half")
        raise KeyboardInterrupt
    assert names(tmp_path) == ["adapter"]
    assert (target / "weights").read_text() == "old"


def test_a_folder_replaces_the_old_one(tmp_path):
    target = tmp_path / "adapter"
    target.mkdir()
    (target / "stale").write_text("old")
    with new_folder(target) as folder:
        (folder / "weights").write_text("new")
    assert names(target) == ["weights"]


def test_what_killed_processes_left_goes_and_nothing_else(tmp_path):
    goes = [tmp_path / ".a.json.01234567", tmp_path / "adapter" / "x" / ".w.89abcdef", tmp_path / ".adapter.fedcba98"]
    stays = [tmp_path / "a.json", tmp_path / ".lock", tmp_path / "other" / ".a.json.01234567", tmp_path / ".a.0123"]
    for path in (*goes[:2], *stays):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("")
    goes[2].mkdir()
    remove_unfinished(tmp_path, age_s=60)
    assert all(path.exists() for path in goes), "they may be a living process's"
    remove_unfinished(tmp_path, of="a.json.")
    assert [path.exists() for path in goes] == [False, True, True]
    remove_unfinished(tmp_path, ["adapter", "missing"])
    assert not any(path.exists() for path in goes)
    assert all(path.exists() for path in stays)
