"""Hidden states are computed once, kept as they come, and computed anew where a file is damaged."""

import pytest
import torch

from alignlab.engine.cache import states as module
from alignlab.engine.cache.states import StateCache
from alignlab.models.prompts import Encoded

ROWS = [Encoded([1, 2], [index, 3]) for index in range(10)]


def vector(row):
    return torch.tensor([float(row.response_ids[0]), 7.0])


class Computing:
    """Computes vectors and counts the rows; fails at a call if told to."""

    def __init__(self, fails_at=None):
        self.rows, self.calls, self.fails_at = 0, 0, fails_at

    def __call__(self, rows):
        self.calls += 1
        if self.calls == self.fails_at:
            raise KeyboardInterrupt
        self.rows += len(rows)
        return torch.stack([vector(row) for row in rows])


def test_each_row_is_computed_once(tmp_path):
    first, second = Computing(), Computing()
    twice = [*ROWS, ROWS[0]]
    found = StateCache(tmp_path).states("scorer", twice, first)
    assert found.equal(torch.stack([vector(row) for row in twice]))
    assert first.rows == 10
    more = [*ROWS[5:], Encoded([1], [50, 3])]
    assert StateCache(tmp_path).states("scorer", more, second).equal(torch.stack([vector(row) for row in more]))
    assert second.rows == 1
    StateCache(tmp_path).states("another", ROWS, second)
    assert second.rows == 11


def test_a_killed_run_loses_the_rows_in_flight(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "ROWS_A_FILE", 4)
    with pytest.raises(KeyboardInterrupt):
        StateCache(tmp_path).states("scorer", ROWS, Computing(fails_at=3))
    again = Computing()
    StateCache(tmp_path).states("scorer", ROWS, again)
    assert again.rows == 2


@pytest.mark.parametrize("change", ["cut", "flip"])
def test_a_damaged_file_is_said_and_made_again(tmp_path, capfd, change):
    StateCache(tmp_path).states("scorer", ROWS, Computing())
    (file,) = tmp_path.glob("*/*.safetensors")
    content = bytearray(file.read_bytes())
    if change == "flip":
        content[-1] ^= 64
    file.write_bytes(content[: -20 if change == "cut" else None])
    again = Computing()
    found = StateCache(tmp_path).states("scorer", ROWS, again)
    assert again.rows == 10
    assert found.equal(torch.stack([vector(row) for row in ROWS]))
    assert "computed anew" in capfd.readouterr().out
