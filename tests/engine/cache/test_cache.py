import json
import os
from itertools import chain

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from alignlab.engine.cache import scores as module
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.cache.table import EMPTY, FORMAT, ScoreTable, read_table, write_table
from alignlab.models.prompts import Encoded
from support.counting import Counting, last_tokens, table_of

ROWS = [Encoded([1, 2], [3, 4]), Encoded([1, 2], [5]), Encoded([1, 2], [3, 4])]
MANY = [Encoded([1, number // 4], [number]) for number in range(20)]


def test_each_distinct_row_is_computed_once(tmp_path):
    compute = Counting()
    for _ in range(2):
        cache = ScoreCache(tmp_path)
        assert cache.scores("scorer", ROWS, compute, name="x").tolist() == [4, 5, 4]
    assert compute.asked == 2
    assert (cache.counts["x"].computed, cache.counts["x"].reused) == (0, 2)


def test_a_row_that_is_asked_for_again_is_counted_once(tmp_path):
    cache = ScoreCache(tmp_path)
    cache.scores("scorer", ROWS[:1], Counting(), name="x")
    cache.scores("scorer", ROWS, Counting(), name="x")
    cache.scores("scorer", ROWS, None, name="x")
    assert (cache.counts["x"].computed, cache.counts["x"].reused) == (2, 0)
    again = ScoreCache(tmp_path)
    again.scores("scorer", ROWS[1:], None, name="x")
    again.scores("scorer", ROWS, None, name="x")
    assert (again.counts["x"].computed, again.counts["x"].reused) == (0, 2)


def test_scores_are_float64_and_writable(tmp_path):
    tenths = torch.full((3,), 0.1, dtype=torch.float64)
    scores = ScoreCache(tmp_path).scores("scorer", ROWS, lambda rows: tenths[: len(rows)], name="x")
    assert scores.dtype == torch.float64
    scores += 1
    assert ScoreCache(tmp_path).scores("scorer", ROWS, None, name="x").equal(tenths)


def test_no_rows_have_no_scores(tmp_path):
    assert ScoreCache(tmp_path / "c").scores("scorer", [], None, name="x").shape == (0,)
    assert not (tmp_path / "c").exists()


def test_new_rows_join_the_table(tmp_path):
    compute = Counting()
    cache = ScoreCache(tmp_path)
    cache.scores("scorer", ROWS[:1], compute, name="x")
    assert cache.scores("scorer", ROWS, compute, name="x").tolist() == [4, 5, 4]
    assert compute.asked == 2


def test_another_scorer_shares_nothing(tmp_path):
    compute = Counting()
    cache = ScoreCache(tmp_path)
    cache.scores("one", ROWS, compute, name="x")
    cache.scores("two", ROWS, compute, name="x")
    assert compute.asked == 4


def test_a_row_with_the_boundary_elsewhere_is_another_row(tmp_path):
    compute = Counting()
    cache = ScoreCache(tmp_path)
    cache.scores("scorer", [Encoded([1, 2], [3]), Encoded([1], [2, 3])], compute, name="x")
    assert compute.asked == 2


def test_nothing_but_the_table_and_its_lock_stays(tmp_path):
    ScoreCache(tmp_path).scores("scorer", MANY, Counting(), name="x")
    assert {file.name.split(".", 1)[1] for file in tmp_path.iterdir()} == {"parquet", "parquet.lock"}


def test_a_table_that_holds_every_row_is_not_written_again(tmp_path):
    cache = ScoreCache(tmp_path)
    cache.scores("scorer", MANY, Counting(), name="x")
    before = table_of(tmp_path).stat().st_mtime_ns
    cache.scores("scorer", MANY[:5], None, name="x")
    assert table_of(tmp_path).stat().st_mtime_ns == before


def test_the_table_does_not_depend_on_the_order_of_the_rows(tmp_path):
    for name, rows in (("one", MANY), ("two", MANY[::-1])):
        cache = ScoreCache(tmp_path / name)
        cache.scores("scorer", rows[:7], Counting(), name="x")
        cache.scores("scorer", rows, Counting(), name="x")
    assert table_of(tmp_path / "one").read_bytes() == table_of(tmp_path / "two").read_bytes()


def test_a_claim_holds_rows_of_one_beginning_and_of_one_size(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_A_CLAIM", 8)
    compute = Counting()
    ScoreCache(tmp_path).scores("scorer", MANY[::-1], compute, name="x")
    assert [len(call) for call in compute.calls] == [8, 8, 4]
    assert list(chain(*compute.calls)) == list(range(20))


def test_a_score_that_is_not_finite_stops_the_run_and_is_not_kept(tmp_path):
    with pytest.raises(FloatingPointError, match=r"x: 1 of 2 scores are not finite"):
        ScoreCache(tmp_path).scores("scorer", ROWS, lambda rows: torch.tensor([1.0, float("nan")]), name="x")
    compute = Counting()
    ScoreCache(tmp_path).scores("scorer", ROWS, compute, name="x")
    assert compute.asked == 2


# -- a table that is not what was written -----------------------------------------------------------------------------


def rewritten(path, change, *, digest=True):
    """Writes the table anew with its rows changed; its digest is right for them if asked."""
    table, damage = read_table(path, "scorer")
    assert damage is None
    metadata = pq.read_schema(path).metadata
    if digest:
        write_table(path, "scorer", change(table))
    else:
        changed = change(table)
        ids = [index.tobytes() for index in changed.ids.view("V16")]  # NumPy cuts zeros off a string's end
        columns = {"id": pa.array(ids, pa.binary(16)), "score": pa.array(changed.scores)}
        pq.write_table(pa.table(columns).replace_schema_metadata(metadata), path)


def flipped(path):
    data = bytearray(path.read_bytes())
    index = data.find(np.float64(4).tobytes())
    assert index > 0
    data[index + 6] ^= 0x40
    path.write_bytes(data)


def zeroed(path):
    data = bytearray(path.read_bytes())
    assert len(data) > 2 * 4096
    data[4096:8192] = bytes(4096)
    path.write_bytes(data)


def of_another_scorer(path):
    table, _ = read_table(path, "scorer")
    write_table(path, "another", table)


def without_column(path):
    metadata = pq.read_schema(path).metadata
    pq.write_table(pq.read_table(path).drop_columns("score").replace_schema_metadata(metadata), path)


def of_float32(path):
    whole = pq.read_table(path)
    wide = whole.set_column(1, "score", whole["score"].cast(pa.float32()))
    pq.write_table(wide.replace_schema_metadata(pq.read_schema(path).metadata), path)


def without_header(path):
    pq.write_table(pq.read_table(path).replace_schema_metadata(None), path)


def with_header(path, header):
    pq.write_table(pq.read_table(path).replace_schema_metadata({"alignlab": header}), path)


DAMAGES = {
    "cut in half": (lambda path: os.truncate(path, path.stat().st_size // 2), "cannot be read as Parquet"),
    "cut by a byte": (lambda path: os.truncate(path, path.stat().st_size - 1), "cannot be read as Parquet"),
    "empty": (lambda path: os.truncate(path, 0), "cannot be read as Parquet"),
    "a flipped bit": (flipped, "cannot be read as Parquet"),
    "4 KiB of zeros": (zeroed, "cannot be read as Parquet"),
    "another scorer's": (of_another_scorer, "holds another scorer's scores"),
    "a column is missing": (without_column, "has not the columns id, score"),
    "another type": (of_float32, "has not the columns id, score"),
    "a row is missing": (
        lambda path: rewritten(path, lambda t: ScoreTable(t.ids[1:], t.scores[1:]), digest=False),
        "rows of",
    ),
    "a score is changed": (
        lambda path: rewritten(path, lambda t: ScoreTable(t.ids, t.scores + 1), digest=False),
        "is not what was written (digest)",
    ),
    "not a number": (
        lambda path: rewritten(path, lambda t: ScoreTable(t.ids, t.scores * np.float64("nan"))),
        "holds a score that is not finite",
    ),
    "no header": (without_header, f"is no table of scores of format {FORMAT}"),
    "an older format": (
        lambda path: with_header(path, json.dumps({"scorer": "scorer", "digest": "0"})),
        f"of format {FORMAT}",
    ),
    "a header that is no JSON": (lambda path: with_header(path, "{"), "its header is not JSON"),
    "a header that is a list": (lambda path: with_header(path, "[]"), "is no table of scores"),
    "a text file": (lambda path: path.write_text("nothing\n" * 3000), "cannot be read as Parquet"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_table_is_refused_by_name_and_rebuilt(tmp_path, capsys, damage):
    rows = [Encoded([1, 2], [number]) for number in range(700)]
    ScoreCache(tmp_path).scores("scorer", rows, Counting(), name="x")
    path = table_of(tmp_path)
    break_it, reason = DAMAGES[damage]
    break_it(path)
    capsys.readouterr()
    compute = Counting()
    assert ScoreCache(tmp_path).scores("scorer", rows, compute, name="x").tolist() == last_tokens(rows)
    assert compute.asked == len(rows)
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith(f"{path}: ")
    assert line.endswith("; rebuilt")
    assert reason in line
    ScoreCache(tmp_path).scores("scorer", rows, compute, name="x")  # and whole again
    assert compute.asked == len(rows)
    assert capsys.readouterr().out == ""


def test_no_flipped_bit_changes_a_score(tmp_path):
    path = tmp_path / "t.parquet"
    ids = np.array(sorted(row.key for row in ROWS[:2]), dtype="S16")
    write_table(path, "scorer", ScoreTable(ids, np.array([4.0, 5.0], np.float64)))
    whole = path.read_bytes()
    refused = 0
    for index in range(len(whole)):
        data = bytearray(whole)
        data[index] ^= 1 << index % 8
        path.write_bytes(data)
        table, damage = read_table(path, "scorer")
        refused += damage is not None
        assert damage or (table.ids.tolist() == ids.tolist() and table.scores.tolist() == [4.0, 5.0])
    assert refused > len(whole) / 3


def test_a_missing_table_is_no_damage(tmp_path):
    assert read_table(tmp_path / "none.parquet", "scorer") == (EMPTY, None)
