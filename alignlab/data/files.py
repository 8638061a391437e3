"""JSON Lines and Parquet rows with their locations. Imports pyarrow only for Parquet."""

import contextlib
import gzip
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.data.report import BadRow
from alignlab.errors import ConfigError, nearest

SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz")
"""Ends of the names of data files; messages name the first three."""
_NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What the hub's tools write beside data."""
_MOST_NAMES = 20
"""Files beside a missing one that an error still lists."""
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "validation"),
    **dict.fromkeys(("test", "eval"), "test"),
}
"""Names of files and folders that say which split their rows belong to."""


@dataclass(frozen=True)
class DataFile:
    """A file of rows."""

    path: Path
    shown: str
    """Its name in messages: its path below the folder that was given."""
    split: str | None = None
    """train, validation or test where a folder holds files of several; else None."""


def data_files(path: str | Path, *, key: str = "dataset.path") -> list[DataFile]:
    """The data files that a path means: itself, or those of a folder.

    Raises:
        ConfigError: if there is none, if its kind is unknown (names the nearest file beside a missing one), or if some
            files of a folder name a split and others do not.
    """
    given = Path(path)
    kinds = ".jsonl, .json, .parquet"
    if given.is_file():
        if not _is_data(given):
            raise ConfigError(f"{key}={path}: must end in one of {kinds}")
        return [DataFile(given, given.name)]
    if given.is_dir():
        files = sorted(file for file in given.rglob("*") if _is_data(file) and file.is_file())
        if files:
            return _with_splits(given, files, key)
        raise ConfigError(f"{key}={path}: the folder holds no {kinds} file")
    folder = given.parent
    if not folder.is_dir():
        raise ConfigError(f"{key}={path}: does not exist; there is no folder {folder} either")
    beside = [file.name for file in folder.iterdir() if _is_data(file)]
    hint = nearest(given.name, beside) if 0 < len(beside) <= _MOST_NAMES else f"{folder} holds {len(beside)} data files"
    raise ConfigError(f"{key}={path}: does not exist; {hint}")


def _is_data(file: Path) -> bool:
    return file.name.endswith(SUFFIXES) and file.name not in _NO_DATA and not file.name.startswith(".")


def _with_splits(folder: Path, files: Sequence[Path], key: str) -> list[DataFile]:
    """The files with the splits that their names give; None everywhere unless there are two splits at least."""
    named = {file: file.relative_to(folder) for file in files}
    splits = {file: _split_of_name(name) for file, name in named.items()}
    if len(set(splits.values()) - {None}) < 2:
        return [DataFile(file, str(name)) for file, name in named.items()]
    for file, split in splits.items():
        if split is None:
            raise ConfigError(
                f"{key}={folder}: {named[file]} names no split, but other files do; name it train, validation or test"
            )
    return [DataFile(file, str(name), splits[file]) for file, name in named.items()]


def _split_of_name(name: Path) -> str | None:
    """`test/0000.parquet`, `test.jsonl`, `test-00000-of-00001.parquet`; the innermost name counts."""
    for part in reversed(name.parts):
        word = re.split(r"[-_.]", part.lower(), maxsplit=1)[0]
        if word in _SPLITS:
            return _SPLITS[word]
    return None


def column_names(file: Path, *, looked_at: int = 100) -> list[str]:
    """The columns of a file: from the Parquet schema, or of the first JSON rows that can be read; of none none."""
    if file.suffix == ".parquet":
        return list(_parquet(file).schema_arrow.names)
    names: dict[str, None] = {}
    for number, (_, row) in enumerate(json_lines(file)):
        if number >= looked_at:
            break
        if not isinstance(row, BadRow):
            names.update(dict.fromkeys(row))
    return list(names)


def num_rows(file: Path) -> int:
    """Rows of a file, bad ones too; of a compressed file 0, as counting would cost as much as reading."""
    if file.suffix == ".parquet":
        return int(_parquet(file).metadata.num_rows)
    if file.suffix == ".gz":
        return 0
    with file.open("rb") as stream:
        return sum(chunk.count(b"\n") for chunk in iter(lambda: stream.read(1 << 22), b""))


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (location, row); the location reads `train.jsonl:5`, and counts Parquet rows from 1 as well.

    Raises:
        ConfigError: `file:line: reason` for a row that cannot be read.
    """
    for number, row in located_rows(file):
        if isinstance(row, BadRow):
            raise ConfigError(f"{file}:{number}: {row.reason}")
        yield f"{file.name}:{number}", row


def located_rows(file: Path, columns: Sequence[str] | None = None) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yields (line number, row), or what is wrong with a line; of a Parquet file only the columns that are named.

    Raises:
        ConfigError: if the file as a whole cannot be read.
    """
    return parquet_rows(file, columns) if file.suffix == ".parquet" else json_lines(file)


def parquet_rows(file: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yields (row number from 1, row)."""
    import pyarrow

    table = _parquet(file)
    wanted = None if columns is None else [name for name in table.schema_arrow.names if name in columns]
    number = 0
    with _refusing(file, "Parquet", pyarrow.ArrowException, OSError):
        for batch in table.iter_batches(batch_size=1024, columns=wanted):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:  # Arrow does not look at the bytes of its texts before Python does
                rows = [_row_of(batch, index) for index in range(batch.num_rows)]
            for row in rows:
                number += 1
                yield number, row


def _row_of(batch: Any, index: int) -> dict[str, Any] | BadRow:
    row = {}
    for name in batch.schema.names:
        try:
            row[name] = batch.column(name)[index].as_py()
        except UnicodeDecodeError as error:
            return BadRow("not_utf8", name, f"byte {error.start} is not UTF-8")
    return row


def _parquet(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    with _refusing(file, "Parquet", pyarrow.ArrowException, OSError):
        return pyarrow.parquet.ParquetFile(file)


def json_lines(file: Path) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yields (line number, object) of a JSON Lines file, or what is wrong with a line; blank lines are passed over.

    Raises:
        ConfigError: if the file is one JSON array, or a damaged archive.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with _refusing(file, "gzip", EOFError, OSError), opened(file, "rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            if number == 1 and ".json" in file.suffixes and line.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                raise ConfigError(f"{file}: is one JSON array; one object a line is needed (JSON Lines)")
            yield number, _json_row(line, "utf-8-sig" if number == 1 else "utf-8")


def _json_row(line: bytes, encoding: str) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line.decode(encoding))
    except UnicodeDecodeError as error:
        return BadRow("not_utf8", "", f"byte {error.start} is not UTF-8")
    except json.JSONDecodeError as error:
        reason = f"not JSON, column {error.colno}: {error.msg}; one object a line is needed (JSON Lines)"
        return BadRow("not_json", "", reason)
    except (ValueError, RecursionError) as error:  # a number of thousands of digits, brackets nested as deep
        return BadRow("not_json", "", f"cannot be read as JSON: {error}")
    if not isinstance(row, dict):
        return BadRow("not_an_object", "", f"must be a JSON object, is a {type(row).__name__}")
    return row


@contextlib.contextmanager
def _refusing(file: Path, form: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"{file}: cannot be read as {form}: {said[0]}") from None
