"""Which rows make an optimizer step: whole ranked sets, in an order that seed and epoch decide."""

import hashlib
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch.utils.data import Sampler
from transformers import TrainerCallback


class SetEpoch(TrainerCallback):  # type: ignore[misc]
    """Tell a sampler which epoch it is.

    accelerate does, but for several processes that resume in the middle of an epoch: they would take the first epoch's
    order, and so some rows twice and others never.
    """

    def __init__(self, sampler: "GroupedBatchSampler") -> None:
        self.sampler = sampler

    def on_epoch_begin(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Comes before the epoch's first row is drawn, also where training resumes within an epoch."""
        self.sampler.set_epoch(int(state.epoch or 0))


class GroupedBatchSampler(Sampler[list[int]]):
    """Row numbers of each batch: whole ranked sets, shuffled anew every epoch.

    By pairs (`sets_per_step=None`): steps of exactly `rows_per_step` rows. Sets come in random order; one that no
    longer fits the step waits for the next, and a later one takes its place if one of the next LOOK_AHEAD fits; else
    the set is cut, as is one that is larger than a step. Where each row is its own set this is the plain random order.
    The last step is filled up from the order's beginning.

    By sets: steps of exactly `sets_per_step` whole sets, however many rows they have.

    A step is cut into `parts` batches, one for each process (accelerate hands them out in turn) and accumulation step;
    so a step has the same rows on any number of processes.

    Args:
        sets: for each row of the data, a number that the rows of its set share.
        rows_per_step: rows of an optimizer step, over all processes and forwards; unused with sets_per_step.
        seed: with the epoch's number it makes the order.
        sets_per_step: sets of an optimizer step, over all processes.
        parts: batches of a step; rows_per_step must be a multiple of it, as `share_batch` makes sure.
    """

    LOOK_AHEAD = 32

    def __init__(
        self, sets: Sequence[int], *, rows_per_step: int, seed: int, sets_per_step: int | None = None, parts: int = 1
    ) -> None:
        self.members: dict[int, list[int]] = {}
        for row, number in enumerate(sets):
            self.members.setdefault(number, []).append(row)
        self.num_rows, self.seed, self.epoch = len(sets), seed, 0
        self.rows_per_step, self.sets_per_step, self.parts = rows_per_step, sets_per_step, parts

    def set_epoch(self, epoch: int) -> None:
        """Set which epoch's order is next; see SetEpoch."""
        self.epoch = epoch

    @property
    def num_steps(self) -> int:
        """Optimizer steps of an epoch."""
        if self.sets_per_step is not None:
            return -(-len(self.members) // self.sets_per_step)
        return -(-self.num_rows // self.rows_per_step)

    def __len__(self) -> int:
        return self.num_steps * self.parts

    def __iter__(self) -> Iterator[list[int]]:
        for step in self.steps():
            yield from step

    def steps(self) -> Iterator[list[list[int]]]:
        """The rows of each step, a list a batch."""
        draw = torch.Generator().manual_seed(epoch_seed(self.seed, self.epoch))
        sets = list(self.members.values())
        shuffled = [sets[index] for index in torch.randperm(len(sets), generator=draw).tolist()]
        units: list[Any] = list(self._packed(shuffled)) if self.sets_per_step is None else shuffled
        endless = itertools.cycle(units)
        size = (self.sets_per_step or self.rows_per_step) // self.parts
        for _ in range(self.num_steps):
            parts = [list(itertools.islice(endless, size)) for _ in range(self.parts)]
            yield parts if self.sets_per_step is None else [list(itertools.chain(*part)) for part in parts]

    def sets_in_a_step(self) -> float:
        """Distinct ranked sets of a step, a mean over the epoch's."""
        set_of = {row: number for number, rows in self.members.items() for row in rows}
        counts = [len({set_of[row] for part in step for row in part}) for step in self.steps()]
        return sum(counts) / len(counts)

    def _packed(self, sets: Sequence[list[int]]) -> Iterator[int]:
        """The rows of all sets, ordered so that batches end where sets do as far as that goes."""
        waiting, taken = deque(sets), 0
        while waiting:
            rows = self._next(waiting, self.rows_per_step - taken % self.rows_per_step)
            taken += len(rows)
            yield from rows

    def _next(self, waiting: deque[list[int]], free: int) -> list[int]:
        """The next set of at most `free` rows, or as many rows of the first one."""
        near = range(min(len(waiting), self.LOOK_AHEAD))
        index = next((index for index in near if len(waiting[index]) <= free), 0)
        rows = waiting[index]
        del waiting[index]
        if len(rows) > free:
            waiting.appendleft(rows[free:])
        return rows[:free]


def epoch_seed(seed: int, epoch: int) -> int:
    """A hash of both: with their sum, seed 0's second epoch would be seed 1's first."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{epoch}".encode()).digest()[:7])
