"""A forest holds every row: the identities that make sharing safe."""

import random

import pytest
import torch

from alignlab.engine.scoring.layout import BLOCK_SIZE, MASK_COST, padded_batch, prefix_tree_batch, rounded_up
from alignlab.models.prompts import Encoded


def random_rows(seed, *, num=14, vocabulary=3):
    """Rows over few tokens, so that prefixes, duplicates and rows inside other rows are common."""
    rng = random.Random(seed)
    rows = []
    for _ in range(num):
        tokens = [rng.randrange(vocabulary) for _ in range(rng.randint(2, 12))]
        start = rng.randint(1, len(tokens) - 1)
        rows.append(Encoded(tokens[:start], tokens[start:]))
    return rows


def ends_mask(layout):
    """Which flat slot sees which, as the ends say, for one packed row."""
    slots = torch.arange(layout.ids_RL.shape[1])
    return (slots[None] <= slots[:, None]) & (slots[:, None] < layout.subtree_end_RL[0][None])


def seen_by_ends(layout, slot):
    """Slots that a slot sees, by the ends, in order."""
    return ends_mask(layout)[slot].nonzero()[:, 0].tolist()


def seen_by_reads(layout, slot):
    """The same by the one read that answers for the slot."""
    position = int(layout.output_idx_L[slot])
    for call in layout.calls:
        if position < call.query_idx_BQ.numel():
            row, query = divmod(position, call.query_idx_BQ.shape[1])
            assert call.query_idx_BQ[row, query] == slot
            seen = call.key_idx_BK[row][call.visible(None)[row, 0, query]].tolist()
            return seen if not call.is_causal else call.key_idx_BK[row, : query + 1].tolist()
        position -= call.query_idx_BQ.numel()
    raise AssertionError("no read answers")


@pytest.mark.parametrize("seed", range(6))
@pytest.mark.parametrize(
    ("shared", "seen_by"),
    [({"mask_cost": price}, seen_by_reads) for price in (0.0, 0.01, 1.0)] + [({"block_sparse": True}, seen_by_ends)],
)
def test_every_scored_token_sees_exactly_its_own_prefix(seed, shared, seen_by):
    rows = random_rows(seed)
    layout = prefix_tree_batch(rows, **shared)
    for number, row in enumerate(rows):
        tokens = row.prompt_ids + row.response_ids
        for position in range(layout.scored_idx_BT.shape[1]):
            entry = int(layout.scored_idx_BT[number, position])
            scored = len(row.prompt_ids) - 1 <= position < len(tokens) - 1
            assert scored == (entry < len(layout.sources_N))
            if scored:
                assert layout.targets_N[entry] == tokens[position + 1]
                seen = seen_by(layout, int(layout.sources_N[entry]))
                assert layout.position_ids_RL[0, seen].tolist() == list(range(position + 1))
                assert layout.ids_RL[0, seen].tolist() == tokens[: position + 1]


@pytest.mark.parametrize("seed", range(4))
def test_free_masks_share_every_prefix(seed):
    rows = random_rows(seed)
    texts = [tuple(row.prompt_ids + row.response_ids) for row in rows]
    prefixes = {text[:end] for text in texts for end in range(1, len(text) + 1)}
    layout = prefix_tree_batch(rows, mask_cost=0)
    assert layout.num_distinct == layout.num_positions == len(prefixes)
    assert layout.num_tokens == sum(map(len, texts))
    assert padded_batch(rows).num_distinct == layout.num_tokens


@pytest.mark.parametrize("seed", range(4))
def test_each_distinct_scored_token_is_projected_once(seed):
    rows = random_rows(seed)
    texts = [(tuple(row.prompt_ids + row.response_ids), len(row.prompt_ids)) for row in rows]
    scored = {text[:end] for text, start in texts for end in range(start + 1, len(text) + 1)}
    layout = prefix_tree_batch(rows, mask_cost=0)
    assert len(layout.sources_N) == len(layout.targets_N) == len(scored)


def ranked_set(lengths=(4, 8, 12, 16, 20, 30)):
    """A prompt with six responses, most of which begin alike."""
    text = list(range(100, 140))
    return [Encoded(list(range(50, 60)), [*text[:length], length]) for length in lengths]


def test_all_pairs_of_a_set_cost_its_rows():
    """Fifteen pairs of six responses: thirty rows of which six differ."""
    six = ranked_set()
    pairs = [(left, right) for position, left in enumerate(six) for right in six[position + 1 :]]
    thirty = [left for left, _ in pairs] + [right for _, right in pairs]
    pairs_layout, set_layout = prefix_tree_batch(thirty), prefix_tree_batch(six)
    for name in ("num_positions", "num_distinct"):
        assert getattr(pairs_layout, name) == getattr(set_layout, name)
    assert len(pairs_layout.sources_N) == len(set_layout.sources_N)
    assert sum(call.query_idx_BQ.numel() for call in pairs_layout.calls) == sum(
        call.query_idx_BQ.numel() for call in set_layout.calls
    )
    assert pairs_layout.num_tokens == 5 * set_layout.num_tokens


def test_dear_masks_share_identical_rows_only():
    row = Encoded([1, 2], [3, 4, 5, 6])
    other = Encoded([1, 2], [7, 8, 9, 6])
    layout = prefix_tree_batch([row, other, row, other], mask_cost=10.0)
    assert layout.num_distinct == 12
    assert layout.scored_idx_BT[0].equal(layout.scored_idx_BT[2])
    assert prefix_tree_batch([row, other], mask_cost=0).num_distinct == 10


def test_a_short_beginning_of_long_rows_is_not_worth_a_mask():
    long = [Encoded([7] * 5, [number] * 400) for number in (1, 2)]
    assert prefix_tree_batch(long).num_distinct == 810
    assert prefix_tree_batch([Encoded([7] * 300, [number] * 100) for number in (1, 2)]).num_distinct == 500
    assert 5 < MASK_COST * (400 * 405 - 405**2 / 2) < 300  # the sum behind both


def test_order_of_rows_is_kept():
    rows = random_rows(3)
    layout, backwards = prefix_tree_batch(rows), prefix_tree_batch(rows[::-1])
    for number in range(len(rows)):
        left, right = layout.scored_idx_BT[number], backwards.scored_idx_BT[len(rows) - 1 - number]
        targets = [lay.targets_N[row[row < len(lay.targets_N)]] for lay, row in ((layout, left), (backwards, right))]
        assert targets[0].equal(targets[1])


def test_rows_of_like_size_are_read_together():
    alike = prefix_tree_batch([Encoded([number], [number] * 20) for number in range(9)])
    assert [tuple(call.query_idx_BQ.shape) for call in alike.calls] == [(9, 21)]
    apart = prefix_tree_batch([Encoded([1], [1] * 300), Encoded([2], [2] * 20), Encoded([3], [3] * 20)])
    assert sorted(tuple(call.query_idx_BQ.shape) for call in apart.calls) == [(1, 301), (2, 21)]


def test_an_empty_slot_sees_itself_alone():
    layout = padded_batch([Encoded([1], [2, 3, 4]), Encoded([1], [2])])
    assert layout.subtree_end_RL.tolist() == [[4, 4, 4, 4], [2, 2, 3, 4]]
    assert layout.attention_mask().tolist() == [[True] * 4, [True, True, False, False]]


def test_blocks_come_in_few_lengths():
    lengths = {rounded_up(size) for size in range(1, 8193)}
    assert len(lengths) == 7 + 8 * 3
    sizes = range(BLOCK_SIZE + 1, 8193)
    assert all(size <= rounded_up(size) <= max(size + BLOCK_SIZE, size * 9 / 8) for size in sizes)
    assert rounded_up(1) == 2 * BLOCK_SIZE  # a single block would be compiled apart
    assert all(length % BLOCK_SIZE == 0 for length in lengths)


def test_a_layout_moves_with_everything_in_it():
    layout = prefix_tree_batch(random_rows(1), mask_cost=0)
    moved = layout.to("meta")
    tensors = [value for value in vars(moved).values() if isinstance(value, torch.Tensor)]
    tensors += [value for call in moved.calls for value in vars(call).values() if isinstance(value, torch.Tensor)]
    assert len(tensors) == 7 + 3 * len(layout.calls)
    assert all(tensor.is_meta for tensor in tensors)
    assert moved.num_distinct == layout.num_distinct
