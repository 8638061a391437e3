"""Writes ranked sets for training: ranked.jsonl for alignlab, pairs.jsonl and pairs.parquet in TRL's columns.

Pairs of harmless requests lie apart, in control_pairs.jsonl and control_pairs.parquet: another trainer decides on them.

Set by set, beside the files and renamed at the end, so a killed run leaves no half of one, and memory holds one batch.
"""

import json
from collections.abc import Iterable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pyarrow as pa
import pyarrow.parquet as pq

from alignlab.config.names import RANKED_FILE
from alignlab.data.rankings import BENIGN, HARMFUL
from alignlab.io.atomic import replacing
from alignlab.synthesis.sets import RankedSet, SynthesisStats

_PREFIX = {HARMFUL: "", BENIGN: "control_"}
BATCH = 10_000
"""Pairs of one row group: some 10 MB of text."""

_MESSAGES = pa.list_(pa.struct([("role", pa.string()), ("content", pa.string())]))


def export(
    sets: Iterable[RankedSet], folder: Path, *, strategy: str, stats: SynthesisStats, conversations: bool
) -> dict[str, str]:
    """Write the files and count what they hold; return file names by kind.

    Args:
        sets: the ranked sets, in the order of the files.
        folder: where the files go.
        strategy: which pairs the pair files hold; ranked.jsonl holds whole sets.
        stats: counts of sets and pairs are added there.
        conversations: whether prompts are conversations, which Parquet's columns must know before the first row.
    """
    for name in (RANKED_FILE, *(f"{prefix}pairs" for prefix in _PREFIX.values())):
        for abandoned in folder.glob(f".{name}*"):  # by a run that was killed while it wrote
            abandoned.unlink()
    with ExitStack() as stack:
        ranked = stack.enter_context(_replacing_text(folder / RANKED_FILE))
        files: dict[str, _PairFiles] = {}
        for made in sets:
            kind = made.request["kind"]
            if kind not in files:
                files[kind] = stack.enter_context(_PairFiles.replacing(folder, _PREFIX[kind], conversations))
            stats.add(made, strategy)
            _write(ranked, made.row())
            for pair in made.pairs(strategy, as_messages=conversations):
                files[kind].add(pair)
    names = [f"{_PREFIX[kind]}pairs" for kind in files]
    return {"ranked": RANKED_FILE, **{name: f"{name}.parquet" for name in names}}


class _PairFiles:
    """The pairs of one kind of requests, in both formats."""

    def __init__(self, jsonl: IO[str], parquet: pq.ParquetWriter) -> None:
        self._jsonl, self._parquet = jsonl, parquet
        self._batch: list[dict[str, Any]] = []

    @classmethod
    @contextmanager
    def replacing(cls, folder: Path, prefix: str, conversations: bool) -> "Iterator[_PairFiles]":
        """The files under temporary names, renamed if the block ends well."""
        with (
            _replacing_text(folder / f"{prefix}pairs.jsonl") as jsonl,
            replacing(folder / f"{prefix}pairs.parquet") as unfinished,
            pq.ParquetWriter(unfinished, _schema(conversations), compression="zstd") as parquet,
        ):
            files = cls(jsonl, parquet)
            yield files
            files._flush()

    def add(self, pair: dict[str, Any]) -> None:
        """Appends a pair."""
        _write(self._jsonl, pair)
        self._batch.append(pair)
        if len(self._batch) >= BATCH:
            self._flush()

    def _flush(self) -> None:
        self._parquet.write_batch(pa.RecordBatch.from_pylist(self._batch, schema=self._parquet.schema))
        self._batch.clear()


@contextmanager
def _replacing_text(path: Path) -> Iterator[IO[str]]:
    with replacing(path) as unfinished, unfinished.open("w", encoding="utf-8", newline="\n") as stream:
        yield stream


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
