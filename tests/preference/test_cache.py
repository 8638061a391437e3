import pytest
import torch

from alignlab.models.prompts import Encoded
from alignlab.preference.cache import ScoreCache

ROWS = [Encoded([1, 2], [3, 4]), Encoded([1, 2], [5]), Encoded([1, 2], [3, 4])]


class Counting:
    """Scores a row by its last token and counts what it was asked."""

    def __init__(self):
        self.asked = 0

    def __call__(self, rows):
        self.asked += len(rows)
        return torch.tensor([float(row.response_ids[-1]) for row in rows])


def test_each_distinct_row_is_computed_once(tmp_path):
    compute = Counting()
    for _ in range(2):
        cache = ScoreCache(tmp_path)
        assert cache.scores("scorer", ROWS, compute, name="x").tolist() == [4, 5, 4]
    assert compute.asked == 2
    assert (cache.counts["x"].computed, cache.counts["x"].reused) == (0, 2)


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


@pytest.mark.parametrize("damage", ["truncate", "flip", "empty"])
def test_a_damaged_table_is_rebuilt(tmp_path, damage):
    compute = Counting()
    ScoreCache(tmp_path).scores("scorer", ROWS, compute, name="x")
    (path,) = tmp_path.glob("*.parquet")
    data = bytearray(path.read_bytes())
    if damage == "truncate":
        data = data[: len(data) // 2]
    elif damage == "empty":
        data = bytearray()
    else:
        place = data.find(torch.tensor([4.0], dtype=torch.float64).numpy().tobytes())
        assert place > 0
        data[place + 6] ^= 0x40
    path.write_bytes(data)
    assert ScoreCache(tmp_path).scores("scorer", ROWS, compute, name="x").tolist() == [4, 5, 4]
    assert compute.asked == 4
