"""Scores that depend on weights, tokens and nothing else, kept once for all runs.

One Parquet table a scorer; rows by the hash of their tokens. The key says what the scores depend on: base model,
adapter and precision name the table, the tokens (and with them template, tokenizer and length limit) name the row. w,
beta, learning rate and run name are no part of it, so a sweep computes each score once.

Processes that need the same table at the same time share the work: each claims some rows, computes and writes them,
and waits at the end for those that others still compute. What is written is right row by row, so a process that is
killed loses only the rows since it last wrote.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from filelock import FileLock
from numpy.typing import NDArray
from torch import Tensor

from alignlab.engine.cache.claims import Claim, make_claim, others_claims
from alignlab.engine.cache.table import EMPTY, ID, Ids, Ints, ScoreTable, find, read_table, write_table
from alignlab.io.kept import is_writable
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import say

ROWS_A_CLAIM = 1024
"""Rows that a process claims and computes at a time: some 20 s of a 7B model on one GPU, all of a small data set. It
is fixed, so that batches, and with them the last bits of a score, don't depend on how fast a machine is."""

SECONDS_A_WRITE = 60.0
"""How often a long computation writes what it knows."""

Floats = NDArray[np.float64]
Compute = Callable[[list[Encoded]], Tensor]
"""Scores rows, shape (n,). A long list comes in several calls, rows with common beginnings together."""


@dataclass
class CacheCount:
    """Distinct rows under one name that this run computed, and that it found, or had from another process."""

    computed: int = 0
    reused: int = 0


class ScoreCache:
    """Scores of responses under a root folder.

    Args:
        root: the cache folder, shared by all runs.
    """

    def __init__(self, root: Path) -> None:
        self.root = root
        self.counts: dict[str, CacheCount] = {}
        self._is_passed_by = False
        self._seen: dict[str, Ids] = {}
        """The rows that are counted already: a run asks for some of its rows several times."""
        self._unkept: dict[str, ScoreTable] = {}
        """Scorer -> its table with what this object computed, where the cache cannot be written."""

    def scores(self, scorer: str, rows: Sequence[Encoded], compute: Compute, *, name: str) -> Tensor:
        """One float64 score a row, shape (n,), computed only where no run has computed it.

        A table that is damaged, or not this scorer's, is said so and built anew.

        Args:
            scorer: identity of what scores: hashes of base, adapter and precision.
            rows: prompts and responses as tokens.
            compute: scores the rows that are missing.
            name: what the counts are kept under, e.g. `reference`.

        Raises:
            FloatingPointError: if a computed score is not finite; it is not kept.
        """
        if self._is_passed_by:
            found_N = compute(list(rows)).double()
            if not torch.isfinite(found_N).all():
                raise FloatingPointError(f"{name}: a score is not finite")
            return found_N
        ids_N = np.array([row.key for row in rows], dtype=ID)
        ids, first = np.unique(ids_N, return_index=True)
        path = self.root / f"{hashlib.sha256(scorer.encode()).hexdigest()[:16]}.parquet"
        table = self._unkept.get(scorer) or read_table(path, scorer)[0]  # no lock: a table is replaced as a whole
        num_computed = 0
        if (table.indices(ids) < 0).any():
            filling = _Filling(path, scorer, [rows[index] for index in first], compute, name)
            if is_writable(self.root):
                path.parent.mkdir(parents=True, exist_ok=True)
                table = filling.run()
            else:
                table = self._unkept[scorer] = filling.run_unkept(table)
            num_computed = filling.num_computed
        self._count(name, ids, num_computed)
        indices_N = table.indices(ids_N)
        assert (indices_N >= 0).all()
        return torch.from_numpy(table.scores[indices_N])

    @contextmanager
    def unkept(self) -> Iterator[None]:
        """While open, scores are computed and not kept: of samples that nobody asks about again."""
        self._is_passed_by = True
        try:
            yield
        finally:
            self._is_passed_by = False

    def _count(self, name: str, ids: Ids, num_computed: int) -> None:
        seen = self._seen.get(name, EMPTY.ids)
        self._seen[name] = np.union1d(seen, ids)
        count = self.counts.setdefault(name, CacheCount())
        count.computed += num_computed
        count.reused += len(self._seen[name]) - len(seen) - num_computed


def shared_scores(cache: Path) -> ScoreCache:
    """The scores that all runs of a cache folder share."""
    return ScoreCache(cache / "scores")


class _Filling:
    """Brings one scorer's table to hold some distinct rows, beside other processes that do the same."""

    def __init__(self, path: Path, scorer: str, rows: list[Encoded], compute: Compute, name: str) -> None:
        self.path, self.scorer, self.compute, self.name = path, scorer, compute, name
        self.rows = sorted(rows, key=lambda row: row.prompt_ids + row.response_ids)  # shared beginnings meet in a claim
        self.ids = np.array([row.key for row in self.rows], dtype=ID)
        self.num_computed = 0
        self._unknown = np.ones(len(rows), dtype=bool)
        """Rows that are neither in the table nor computed here."""
        self._unwritten = np.zeros(len(rows), dtype=bool)
        """Rows that are computed here and not yet in the table."""
        self._order = np.argsort(self.ids)
        self._ascending = self.ids[self._order]
        self._lock = FileLock(f"{path}.lock")
        self._table = EMPTY
        self._stamp: tuple[int, int, int] | None = None
        self._fresh: list[tuple[Ids, Floats]] = []
        self._claims: list[Claim] = []
        self._write_due = time.monotonic() + SECONDS_A_WRITE

    def run(self) -> ScoreTable:
        """The table, once it holds every row."""
        try:
            while True:
                with self._lock:
                    if time.monotonic() >= self._write_due:
                        self._write()
                        say(f"{self.name}: {(~self._unknown).sum():,} of {len(self.rows):,} rows known")
                    mine, others = self._divide()
                    if not len(mine):
                        self._write()
                if len(mine):
                    self._score(mine)
                elif others:
                    claim, num_rows = others[0]
                    say(f"{self.name}: waits for {num_rows:,} rows that another process computes")
                    claim.wait()
                elif not self._unknown.any():
                    return self._table
        finally:  # an error or Ctrl-C costs only the rows in flight
            with self._lock:
                self._write()

    def run_unkept(self, table: ScoreTable) -> ScoreTable:
        """The table with every row, known to this process alone.

        Args:
            table: what is known.
        """
        self._unknown = table.indices(self.ids) < 0
        say(f"{self.path.parent}: cannot be written; {self._unknown.sum():,} scores ({self.name}) are not kept")
        while len(mine := np.flatnonzero(self._unknown)[:ROWS_A_CLAIM]):
            self._score(mine)
        ids, scores = (np.concatenate(parts) for parts in zip(*self._fresh, strict=True))
        return table.joined(ids, scores)

    def _divide(self) -> tuple[Ints, list[tuple[Claim, int]]]:
        """Indices of the rows that this process computes next; the claims of others, with how many rows they delay."""
        self._read()
        free = self._unknown.copy()
        others = []
        for claim in others_claims(self.path, self._claims):
            found = find(self._ascending, claim.ids)
            theirs = self._order[found[found >= 0]]
            others.append((claim, int(self._unknown[theirs].sum())))
            free[theirs] = False
        mine = np.flatnonzero(free)[:ROWS_A_CLAIM]
        if len(mine):
            self._claims.append(make_claim(self.path, self.ids[mine]))
        return mine, [(claim, delayed) for claim, delayed in others if delayed]

    def _score(self, indices: Ints) -> None:
        scores = self.compute([self.rows[index] for index in indices]).numpy().astype(np.float64)
        assert scores.shape == indices.shape, f"{self.name}: {scores.shape} scores for {len(indices)} rows"
        wrong = int((~np.isfinite(scores)).sum())
        if wrong:
            raise FloatingPointError(f"{self.name}: {wrong} of {len(scores)} scores are not finite")
        self._fresh.append((self.ids[indices], scores))
        self._unknown[indices], self._unwritten[indices] = False, True
        self.num_computed += len(indices)

    def _write(self) -> None:
        """Adds what this process has computed to the table, and lets its claims go. Needs the lock."""
        if self._fresh:
            self._read()
            ids, scores = (np.concatenate(parts) for parts in zip(*self._fresh, strict=True))
            self._table = self._table.joined(ids, scores)
            write_table(self.path, self.scorer, self._table)
            self._stamp = _stamp(self.path)
            self._fresh.clear()
            self._unwritten[:] = False
        while self._claims:
            self._claims.pop().release()
        self._write_due = time.monotonic() + SECONDS_A_WRITE

    def _read(self) -> None:
        """Takes up what others have written. Needs the lock, so that damage is said once."""
        stamp = _stamp(self.path)
        if stamp == self._stamp:
            return
        self._table, damage = read_table(self.path, self.scorer)
        self._stamp = stamp
        self._unknown = (self._table.indices(self.ids) < 0) & ~self._unwritten
        if damage:
            say(f"{self.path}: {damage}; rebuilt")


def _stamp(path: Path) -> tuple[int, int, int] | None:
    """What changes when a file is replaced; None where there is none."""
    try:
        stat = path.stat()
    except FileNotFoundError:
        return None
    return stat.st_ino, stat.st_mtime_ns, stat.st_size
