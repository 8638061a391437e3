"""Scores that depend on weights, tokens and nothing else, kept once for all runs.

One Parquet table a scorer; rows by the hash of their tokens. The key says what the scores depend on: w, beta, learning
rate and run name are no part of it, so a sweep computes each score once. A lock lets concurrent jobs wait for the one
that computes.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import torch
from filelock import FileLock
from torch import Tensor

from alignlab.models.prompts import Encoded
from alignlab.preference.rows import encoded_id


@dataclass
class CacheCount:
    """Rows of one scorer that this run computed, and that it found."""

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

    def scores(
        self, scorer: str, rows: Sequence[Encoded], compute: Callable[[list[Encoded]], Tensor], *, name: str
    ) -> Tensor:
        """One float64 score a row, shape (n,), computed only where no run has computed it.

        Args:
            scorer: identity of what scores: hashes of base, adapter and precision.
            rows: prompts and responses as tokens.
            compute: scores the rows that are missing, in the order given.
            name: what the counts are kept under, e.g. `reference`.
        """
        ids = [encoded_id(row) for row in rows]
        path = self.root / f"{hashlib.sha256(scorer.encode()).hexdigest()[:16]}.parquet"
        path.parent.mkdir(parents=True, exist_ok=True)
        with FileLock(f"{path}.lock"):
            known = _read(path, scorer)
            first = {row_id: row for row_id, row in zip(ids, rows, strict=True) if row_id not in known}
            if first:
                values = compute(list(first.values())).tolist()
                known.update(zip(first, values, strict=True))
                _write(path, scorer, known)
        count = self.counts.setdefault(name, CacheCount())
        count.computed += len(first)
        count.reused += len(set(ids)) - len(first)
        return torch.tensor([known[row_id] for row_id in ids], dtype=torch.float64)


def _read(path: Path, scorer: str) -> dict[str, float]:
    """The table's rows; a table that is damaged or of another scorer counts as absent and is rebuilt."""
    if not path.exists():
        return {}
    try:
        table = pq.read_table(path)
        metadata = table.schema.metadata or {}
        values = table.column("score").to_pylist()
        digest = _digest(table.column("id").to_pylist(), values)
        if json.loads(metadata[b"alignlab"]) != {"scorer": scorer, "digest": digest}:
            return {}
        return dict(zip(table.column("id").to_pylist(), values, strict=True))
    except (pa.ArrowInvalid, KeyError, OSError, ValueError):
        return {}


def _write(path: Path, scorer: str, scores: dict[str, float]) -> None:
    ids = sorted(scores)
    column = pa.array([scores[row_id] for row_id in ids], pa.float64())
    header = {"scorer": scorer, "digest": _digest(ids, column.to_pylist())}
    table = pa.table({"id": ids, "score": column}).replace_schema_metadata({"alignlab": json.dumps(header)})
    beside = path.with_suffix(".tmp")
    pq.write_table(table, beside)
    beside.replace(path)


def _digest(ids: list[str], values: list[float]) -> str:
    return hashlib.sha256(json.dumps([ids, values]).encode()).hexdigest()
