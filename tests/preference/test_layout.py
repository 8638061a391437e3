"""A forest holds every row: the identities that make sharing safe."""

import random

import pytest
import torch

from alignlab.models.prompts import Encoded
from alignlab.preference.layout import forest_layout, padded_layout


def random_rows(seed, *, num=14, vocabulary=3):
    """Rows over few tokens, so that prefixes, duplicates and rows inside other rows are common."""
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        tokens = [rng.randrange(vocabulary) for _ in range(rng.randint(2, 12))]
        start = rng.randint(1, len(tokens) - 1)
        rows.append(Encoded(tokens[:start], tokens[start:]))
    return rows


def seen_by(layout, slot):
    """Tokens that a flat slot attends to, in order of position, itself the last."""
    width = layout.ids_RL.shape[1]
    row, place = divmod(int(slot), width)
    visible = layout.mask()[row, 0, place].nonzero()[:, 0]
    positions = layout.positions_RL[row, visible]
    assert positions.tolist() == list(range(len(positions))), "one token a depth"
    return layout.ids_RL[row, visible].tolist()


@pytest.mark.parametrize("seed", range(8))
@pytest.mark.parametrize("mask_price", [0.0, 0.01, 1.0])
def test_every_scored_token_sees_exactly_its_own_prefix(seed, mask_price):
    rows = random_rows(seed)
    layout = forest_layout(rows, mask_price=mask_price)
    for number, row in enumerate(rows):
        tokens = row.prompt_ids + row.response_ids
        for place in range(layout.entries_BT.shape[1]):
            entry = int(layout.entries_BT[number, place])
            scored = len(row.prompt_ids) - 1 <= place < len(tokens) - 1
            assert scored == (entry < len(layout.sources_N))
            if scored:
                assert layout.targets_N[entry] == tokens[place + 1]
                assert seen_by(layout, layout.sources_N[entry]) == tokens[: place + 1]


@pytest.mark.parametrize("seed", range(4))
def test_free_masks_share_every_prefix(seed):
    rows = random_rows(seed)
    prefixes = {tuple((row.prompt_ids + row.response_ids)[:end]) for row in rows for end in range(1, 13)}
    prefixes = {
        prefix
        for prefix in prefixes
        if any(prefix == tuple((r.prompt_ids + r.response_ids)[: len(prefix)]) for r in rows)
    }
    layout = forest_layout(rows, mask_price=0)
    assert layout.num_distinct == len(prefixes)
    assert layout.num_real == sum(len(row.prompt_ids + row.response_ids) for row in rows)
    assert padded_layout(rows).num_distinct == layout.num_real


def test_dear_masks_share_identical_rows_only():
    row = Encoded([1, 2], [3, 4, 5, 6])
    other = Encoded([1, 2], [7, 8, 9, 6])
    layout = forest_layout([row, other, row, other], mask_price=10.0)
    assert layout.num_distinct == 12
    assert layout.entries_BT[0].equal(layout.entries_BT[2])


def test_order_of_rows_is_kept():
    rows = random_rows(3)
    layout, backwards = forest_layout(rows), forest_layout(rows[::-1])
    for number in range(len(rows)):
        left, right = layout.entries_BT[number], backwards.entries_BT[len(rows) - 1 - number]
        targets = [lay.targets_N[row[row < len(lay.targets_N)]] for lay, row in ((layout, left), (backwards, right))]
        assert targets[0].equal(targets[1])


def test_an_empty_slot_attends_to_itself_alone():
    layout = padded_layout([Encoded([1], [2, 3, 4]), Encoded([1], [2])])
    assert layout.mask()[1, 0, 3].tolist() == [False, False, False, True]
    assert torch.equal(layout.mask().any(-1), torch.ones(2, 1, 4, dtype=torch.bool))
