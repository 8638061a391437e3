"""Which pairs make a step: whole ranked sets, exactly as many pairs as asked, in an order of each epoch's own."""

import collections
import itertools
import random

import pytest
import torch

from alignlab.training.sampler import GroupedBatchSampler, epoch_seed


def sets_of(sizes):
    """For each pair the set that it is from; the sets' pairs lie together, as a run makes them."""
    return [number for number, size in enumerate(sizes) for _ in range(size)]


def steps_of(sets, batch_size, *, seed=0, epoch=0, **named):
    sampler = GroupedBatchSampler(sets, rows_per_step=batch_size, seed=seed, **named)
    sampler.set_epoch(epoch)
    steps = list(sampler)
    assert len(steps) == len(sampler)
    return steps


def split_sets(steps, sets):
    """Sets that lie in more than one step, without what fills up the last one."""
    seen, found = set(), collections.defaultdict(set)
    for number, step in enumerate(steps):
        for row in step:
            if row not in seen:
                found[sets[row]].add(number)
                seen.add(row)
    return {name for name, numbers in found.items() if len(numbers) > 1}


def sizes_of(kind):
    rng = random.Random(0)
    return {
        "pairs": [1] * 100,
        "ranked": [15] * 20,
        "mixed": [rng.choice((1, 3, 6, 10, 15)) for _ in range(60)],
        "huge": [200, 1, 1, 50, 3],
    }[kind]


@pytest.mark.parametrize("kind", ["pairs", "ranked", "mixed", "huge"])
@pytest.mark.parametrize("batch_size", [1, 7, 30, 32])
def test_every_pair_comes_once_in_batches_of_the_size_asked(kind, batch_size):
    sets = sets_of(sizes_of(kind))
    steps = steps_of(sets, batch_size)
    assert all(len(step) == batch_size for step in steps)
    rows = [row for step in steps for row in step]
    assert sorted(rows[: len(sets)]) == list(range(len(sets)))
    filled = rows[len(sets) :]
    assert filled == rows[: len(filled)]
    assert len(filled) < batch_size


def test_sets_that_fill_a_batch_are_never_cut():
    sets = sets_of(sizes_of("ranked"))
    assert not split_sets(steps_of(sets, 30), sets)


def test_at_most_one_set_a_batch_is_cut():
    sets = sets_of(sizes_of("ranked"))
    steps = steps_of(sets, 32)
    assert 0 < len(split_sets(steps, sets)) <= len(steps)
    for step in steps[:-1]:
        assert len({sets[row] for row in step}) <= 4  # 32 pairs of 15: two whole sets and a cut one, or two cut ones


def test_small_sets_fill_what_is_left():
    """A set that no longer fits waits for the next batch, and another one takes its place."""
    sets = sets_of(sizes_of("mixed"))
    steps = steps_of(sets, 32)
    plain = list(torch.randperm(60, generator=torch.Generator().manual_seed(epoch_seed(0, 0))))
    in_order = [row for number in plain for row in range(len(sets)) if sets[row] == number]
    cut_in_order = split_sets([in_order[start : start + 32] for start in range(0, len(in_order), 32)], sets)
    assert len(split_sets(steps, sets)) <= len(cut_in_order) / 2


def test_a_set_larger_than_a_batch_is_cut_into_whole_chunks():
    sets = sets_of([70])
    steps = steps_of(sets, 32)
    assert steps[0] == list(range(32))
    assert steps[1] == list(range(32, 64))


def test_pairs_of_a_set_come_one_after_another():
    sets = sets_of(sizes_of("mixed"))
    for step in steps_of(sets, 32)[:-1]:
        order = [sets[row] for row in step]
        assert len(set(order)) == 1 + sum(left != right for left, right in itertools.pairwise(order))


def test_lone_pairs_come_in_the_plain_random_order():
    generator = torch.Generator().manual_seed(epoch_seed(5, 2))
    expected = torch.randperm(100, generator=generator).tolist()
    steps = steps_of(range(100), 10, seed=5, epoch=2)
    assert [row for step in steps for row in step] == expected


def test_the_order_is_of_seed_and_epoch_alone():
    sets = sets_of(sizes_of("mixed"))
    assert steps_of(sets, 32, seed=1, epoch=1) == steps_of(sets, 32, seed=1, epoch=1)
    others = [steps_of(sets, 32, seed=1, epoch=2), steps_of(sets, 32, seed=9, epoch=1)]
    assert all(other != steps_of(sets, 32, seed=1, epoch=1) for other in others)


def test_no_epoch_has_another_seeds_order():
    """With the sum of seed and epoch, seed 0's second epoch was seed 1's first."""
    orders = [str(steps_of(range(30), 10, seed=seed, epoch=epoch)) for seed in range(6) for epoch in range(6)]
    assert len(set(orders)) == 36
    assert len({seed + epoch for seed in range(6) for epoch in range(6)}) == 11  # control


@pytest.mark.parametrize("kind", ["pairs", "ranked", "mixed", "huge"])
@pytest.mark.parametrize("parts", [1, 2])
def test_a_step_by_sets_has_so_many_whole_ones(kind, parts):
    sets = sets_of(sizes_of(kind))
    batches = steps_of(sets, 32, sets_per_step=4, parts=parts)
    steps = [list(itertools.chain(*batches[start : start + parts])) for start in range(0, len(batches), parts)]
    assert len(steps) == -(-len(set(sets)) // 4)
    for step in steps:
        found = collections.Counter(sets[row] for row in step)
        assert len(found) == 4 or step == steps[-1]
        assert all(count % sets.count(number) == 0 for number, count in found.items())
    assert {row for step in steps for row in step} == set(range(len(sets)))


def test_the_number_of_sets_in_a_step_is_told():
    by_pairs = GroupedBatchSampler(sets_of([15] * 20), rows_per_step=30, seed=0)
    by_sets = GroupedBatchSampler(sets_of([15] * 20), rows_per_step=30, seed=0, sets_per_step=10)
    alone = GroupedBatchSampler(range(300), rows_per_step=30, seed=0)
    assert [one.sets_in_a_step() for one in (by_pairs, by_sets, alone)] == [2, 10, 30]
