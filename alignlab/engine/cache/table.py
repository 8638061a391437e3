"""One Parquet file of scores: rows by id, whole or not there, checked whenever it is read."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from alignlab.io.atomic import replacing

Ids = NDArray[np.bytes_]
"""Row ids, 16 bytes each."""
Ints = NDArray[np.int64]
ID = np.dtype("S16")
FORMAT = 3
_SCHEMA = pa.schema([pa.field("id", pa.binary(ID.itemsize)), pa.field("score", pa.float64())])


@dataclass(frozen=True)
class ScoreTable:
    """Scores by row id; the ids ascend, each once."""

    ids: Ids
    scores: NDArray[np.float64]

    def indices(self, ids: Ids) -> Ints:
        """Where each of the ids lies in the table, -1 where it does not."""
        return find(self.ids, ids)

    def joined(self, ids: Ids, scores: NDArray[np.float64]) -> "ScoreTable":
        """The table with more rows, in any order; one that it holds keeps its score, which others may have read."""
        together, first = np.unique(np.concatenate([self.ids, ids]), return_index=True)
        return ScoreTable(together, np.concatenate([self.scores, scores])[first])


def find(ascending: Ids, ids: Ids) -> Ints:
    """Where each of the ids lies among ascending ones, -1 where it does not."""
    if not len(ascending):
        return np.full(len(ids), -1, dtype=np.int64)
    indices = np.searchsorted(ascending, ids).clip(max=len(ascending) - 1)
    return np.where(ascending[indices] == ids, indices, -1)


EMPTY = ScoreTable(np.empty(0, ID), np.empty(0, np.float64))


def read_table(path: Path, scorer: str) -> tuple[ScoreTable, str | None]:
    """The table and None; an empty one where there is no file; an empty one and the reason where it cannot be used."""
    try:
        return _checked(path, scorer), None
    except FileNotFoundError:
        return EMPTY, None
    except (pa.ArrowException, OSError, ValueError) as error:
        return EMPTY, str(error).partition("\n")[0]


def write_table(path: Path, scorer: str, table: ScoreTable) -> None:
    """Replaces the file, or leaves it as it was. Needs the table's lock: what killed writers left is swept away.

    Args:
        path: of the file.
        scorer: whose scores they are.
        table: all of its rows.
    """
    for left in path.parent.glob(f".{path.name}.*"):
        left.unlink(missing_ok=True)
    header = {"format": FORMAT, "scorer": scorer, "rows": len(table.ids), "digest": _digest(table)}
    columns = [
        pa.Array.from_buffers(_SCHEMA.field(0).type, len(table.ids), [None, pa.py_buffer(table.ids)]),
        pa.array(table.scores, pa.float64()),
    ]
    schema = _SCHEMA.with_metadata({"alignlab": json.dumps(header)})
    with replacing(path) as unfinished, unfinished.open("xb") as stream:
        # Hashes and mantissas do not compress, and no row repeats.
        pq.write_table(
            pa.Table.from_arrays(columns, schema=schema),
            stream,
            compression="none",
            use_dictionary=False,
            write_statistics=False,
            write_page_checksum=True,
        )


def _checked(path: Path, scorer: str) -> ScoreTable:
    """The file's rows.

    Raises:
        ValueError: with the reason, if the file is not what was written for this scorer.
    """
    try:
        whole = pq.ParquetFile(path, page_checksum_verification=True).read()
    except FileNotFoundError:
        raise
    except (pa.ArrowException, OSError, ValueError) as error:
        raise ValueError(f"cannot be read as Parquet ({str(error).partition(chr(10))[0]})") from None
    header = _header(whole.schema.metadata or {})
    _require(header.get("format") == FORMAT, f"is no table of scores of format {FORMAT}")
    _require(header.get("scorer") == scorer, "holds another scorer's scores")
    _require(whole.schema.equals(_SCHEMA), f"has not the columns {', '.join(_SCHEMA.names)}")
    _require(whole.num_rows == header.get("rows"), f"holds {whole.num_rows} rows of {header.get('rows')}")
    ids, scores = (column.combine_chunks() for column in whole.columns)
    _require(not ids.null_count and not scores.null_count, "has rows without a score")
    table = ScoreTable(_bytes_of(ids), scores.to_numpy())
    _require(_digest(table) == header.get("digest"), "is not what was written (digest)")
    _require(bool(np.isfinite(table.scores).all()), "holds a score that is not finite")
    return table


def _header(metadata: dict[bytes, bytes]) -> dict[str, object]:
    try:
        header = json.loads(metadata.get(b"alignlab", b"{}"))
    except ValueError:
        raise ValueError("its header is not JSON") from None
    return header if isinstance(header, dict) else {}


def _require(holds: bool, reason: str) -> None:
    if not holds:
        raise ValueError(reason)


def _bytes_of(ids: pa.Array) -> Ids:
    if not len(ids):
        return EMPTY.ids
    return np.frombuffer(ids.buffers()[1], dtype=ID)[ids.offset : ids.offset + len(ids)]


def _digest(table: ScoreTable) -> str:
    digest = hashlib.sha256(np.ascontiguousarray(table.ids).tobytes())
    digest.update(np.ascontiguousarray(table.scores).tobytes())
    return digest.hexdigest()
