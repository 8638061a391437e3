"""Writes ranked sets for training: ranked.jsonl for alignlab, pairs.jsonl and pairs.parquet in TRL's columns.

Set by set, beside the files and renamed at the end, so a killed run leaves no half of one, and memory holds one batch.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignlab.config.names import RANKED_FILE
from alignlab.course_correction.sets import Account, RankedSet
from alignlab.front.table import replacing

PAIRS_JSONL, PAIRS_PARQUET = "pairs.jsonl", "pairs.parquet"
BATCH = 10_000
"""Pairs of one row group: some 10 MB of text."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def export(sets: Iterable[RankedSet], folder: Path, *, strategy: str, account: Account, conversations: bool) -> None:
    """Writes the three files, and counts what they hold.

    Args:
        sets: the ranked sets, in the order of the files.
        folder: where the files go.
        strategy: which pairs the pair files hold; ranked.jsonl holds whole sets.
        account: counts of sets and pairs are added there.
        conversations: whether prompts are conversations, which Parquet's columns must know before the first row.
    """
    with ExitStack() as stack:
        names = (RANKED_FILE, PAIRS_JSONL, PAIRS_PARQUET)
        ranked_file, jsonl_file, parquet_file = (stack.enter_context(replacing(folder / name)) for name in names)
        ranked = stack.enter_context(ranked_file.open("w", encoding="utf-8", newline="\n"))
        jsonl = stack.enter_context(jsonl_file.open("w", encoding="utf-8", newline="\n"))
        parquet = stack.enter_context(pq.ParquetWriter(parquet_file, _schema(conversations), compression="zstd"))
        batch: list[dict[str, Any]] = []
        for made in sets:
            account.add(made, strategy)
            _write(ranked, made.row())
            for pair in made.pairs(strategy, as_messages=conversations):
                _write(jsonl, pair)
                batch.append(pair)
            if len(batch) >= BATCH:
                parquet.write_batch(pa.RecordBatch.from_pylist(batch, schema=parquet.schema))
                batch.clear()
        if batch:
            parquet.write_batch(pa.RecordBatch.from_pylist(batch, schema=parquet.schema))


def _write(stream: IO[str], row: dict[str, Any]) -> None:
    stream.write(json.dumps(row, allow_nan=False, ensure_ascii=False) + "\n")


def _schema(conversations: bool) -> pa.Schema:
    text = _MESSAGES if conversations else pa.string()
    texts = [(name, text) for name in ("prompt", "chosen", "rejected")]
    labels = [(name, pa.string()) for name in ("request_id", "group", "kind")]
    ranks = [(name, pa.int8()) for name in ("chosen_rank", "rejected_rank")]
    return pa.schema([("id", pa.string()), *texts, *labels, *ranks])


def rows_of(path: Path) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file that this run, or a finished one, has written; none where there is no such file."""
    if path.exists():
        with path.open(encoding="utf-8") as stream:
            for line in stream:
                yield json.loads(line)
