"""Files of rows: every row with its location, every fault with file and line."""

import json

import pyarrow
import pyarrow.parquet
import pytest

from alignlab.data.files import column_names, data_files, read_rows
from alignlab.errors import ConfigError

ROWS = [{"a": "x", "b": 1}, {"a": "y", "b": None}, {"a": "z\nz", "b": 3}]


@pytest.fixture
def jsonl(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("".join(json.dumps(row) + "\n" for row in ROWS))
    return path


@pytest.fixture
def parquet(tmp_path):
    path = tmp_path / "rows.parquet"
    pyarrow.parquet.write_table(pyarrow.Table.from_pylist(ROWS), path, row_group_size=2)
    return path


def test_both_formats_say_the_same(jsonl, parquet):
    assert [row for _, row in read_rows(jsonl)] == [row for _, row in read_rows(parquet)] == ROWS
    assert column_names(jsonl) == column_names(parquet) == ["a", "b"]


def test_every_row_knows_its_place(jsonl, parquet):
    assert [location for location, _ in read_rows(jsonl)] == ["rows.jsonl:1", "rows.jsonl:2", "rows.jsonl:3"]
    assert [location for location, _ in read_rows(parquet)] == ["rows.parquet:1", "rows.parquet:2", "rows.parquet:3"]


def test_blank_lines_count_as_lines_and_a_byte_order_mark_as_nothing(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'\xef\xbb\xbf{"a": 1}\n\n{"a": 2}')
    assert list(read_rows(path)) == [("rows.jsonl:1", {"a": 1}), ("rows.jsonl:3", {"a": 2})]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b'{"a": "x', "not JSON, column "),
        (b'{"a": "\xe9"}', "byte 7 is not UTF-8"),
        (b"[1]", "must be a JSON object, is a list"),
        (b"3", "must be a JSON object, is a int"),
    ],
)
def test_a_bad_line_is_named(tmp_path, line, said):
    path = tmp_path / "rows.jsonl"
    path.write_bytes(b'{"a": 1}\n' + line + b"\n")
    with pytest.raises(ConfigError) as refused:
        list(read_rows(path))
    assert str(refused.value).startswith(f"{path}:2: {said}")


def test_what_is_no_parquet_is_named(tmp_path):
    path = tmp_path / "rows.parquet"
    path.write_text("hello")
    with pytest.raises(ConfigError, match=r"rows.parquet: cannot be read as Parquet"):
        column_names(path)


def test_an_empty_file_has_no_columns(tmp_path):
    (tmp_path / "rows.jsonl").write_text("")
    assert column_names(tmp_path / "rows.jsonl") == []


def test_a_folder_means_its_files_in_order(tmp_path):
    for name in ("b.jsonl", "a/c.parquet", "a/b.json", "notes.txt"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    found = data_files(tmp_path)
    assert [file.shown for file in found] == ["a/b.json", "a/c.parquet", "b.jsonl"]
    assert {file.split for file in found} == {None}


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("rows.jsnl", "did you mean rows.jsonl?"),
        ("no/rows.jsonl", "there is no folder"),
        ("trl-lib/some", "a dataset of the hub is given as dataset.hub=OWNER/NAME"),
        ("dead.jsonl", "is a link to nowhere, which does not exist"),
        ("notes.txt", "must end in one of"),
        ("rows.csv", "pandas.read_csv(FILE).to_json('rows.jsonl', orient='records', lines=True)"),
        ("rows.JSONL", "; rename it to rows.jsonl"),
        ("empty", "the folder holds no"),
    ],
)
def test_nothing_to_read(tmp_path, jsonl, path, said):
    for name in ("notes.txt", "rows.csv", "rows.JSONL"):
        (tmp_path / name).touch()
    (tmp_path / "empty").mkdir()
    (tmp_path / "dead.jsonl").symlink_to("nowhere")
    with pytest.raises(ConfigError, match=r"^dataset.path=") as refused:
        data_files(tmp_path / path)
    assert said in str(refused.value)


def test_a_tilde_is_to_be_written_out():
    with pytest.raises(ConfigError, match=r"algorithm\.held_out=~/rows\.jsonl: does not exist; .*; write \$HOME for ~"):
        data_files("~/rows.jsonl", key="algorithm.held_out")
