"""dataset.keep=consistent: pairs that all objectives rank alike, and nothing else."""

import pytest

from alignlab.data.consistent import Consistency, consistent_rows
from alignlab.data.records import RankedRow, all_pairs, pairs_by

NAMES = ["better", "safer"]


def row(better, safer, responses=("one", "two")):
    scores = {"better": better} if safer is None else {"better": better, "safer": safer}
    return RankedRow("ask", responses, scores)


@pytest.mark.parametrize(
    ("safer", "wanted"),
    [
        ((2.0, 0.5), Consistency(1, 0, 0)),
        ((0.0, 1.0), Consistency(0, 1, 0)),
        ((1.0, 1.0), Consistency(0, 0, 1)),
        ((None, 1.0), Consistency(0, 0, 1)),
        (None, Consistency(0, 0, 1)),
    ],
)
def test_unknown_is_neither_alike_nor_opposite(safer, wanted):
    given = [row((1.0, 0.0), safer)]
    kept, found = consistent_rows(given, NAMES)
    assert found == wanted
    assert len(kept) == wanted.alike
    assert [pair.chosen for pair in pairs_by(kept, "better")] == ["one"] * wanted.alike
    assert len(pairs_by(given, "better")) == 1, "control: without it the pair is trained on"


def test_of_more_responses_single_pairs_are_kept():
    given = [row((3.0, 2.0, 1.0), (1.0, 2.0, 0.0), ("one", "two", "three"))]
    kept, found = consistent_rows(given, NAMES)
    assert found == Consistency(alike=2, opposite=1, unranked=0)
    for name in NAMES:
        assert {(pair.chosen, pair.rejected) for pair in pairs_by(kept, name)} == {("one", "three"), ("two", "three")}
    assert len(all_pairs(kept)) == 2
    assert len(all_pairs(given)) == 3, "control"
