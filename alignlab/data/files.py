"""JSON Lines and Parquet rows with their locations. Imports pyarrow only for Parquet."""

import codecs
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

SUFFIXES = (".jsonl", ".json", ".parquet", ".jsonl.gz", ".json.gz", ".arrow")
"""Ends of the names of data files; messages name the first three, and .arrow is what save_to_disk writes."""
MOST_LINE_BYTES = 2**26
"""A longer line of JSON is no row."""
_SAVED = "state.json"
"""Stands beside the .arrow files of a save_to_disk folder and lists them: others are caches."""
_NO_DATA = ("dataset_info.json", "dataset_infos.json", "dataset_dict.json", "state.json")
"""What the hub's tools write beside data."""
ROWS_AT_ONCE = 256
"""Rows of Parquet that become Python objects together: a small file may hold large rows."""
_MOST_NAMES = 20
"""Files beside a missing one that an error still lists."""
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("validation", "valid", "val", "dev"), "dev"),
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
    """train, dev or test where a folder holds files of several; else None."""


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
            raise ConfigError(f"{key}={path}: must end in one of {kinds}{_other_form(given)}")
        return [DataFile(given, given.name)]
    if given.is_dir():
        files = sorted(file for file in given.rglob("*") if _is_data(file) and file.is_file())
        if files:
            return _with_splits(given, files, key)
        raise ConfigError(f"{key}={path}: the folder holds no {kinds} file")
    folder = given.parent
    if not folder.is_dir():
        hint = "; write $HOME for ~" if str(path).startswith("~") else ""
        if key == "dataset.path":
            hint = hint or "; a dataset of the hub is given as dataset.hub=OWNER/NAME"
        raise ConfigError(f"{key}={path}: does not exist; there is no folder {folder} either{hint}")
    if given.is_symlink():
        raise ConfigError(f"{key}={path}: is a link to {given.readlink()}, which does not exist")
    beside = [file.name for file in folder.iterdir() if _is_data(file)]
    if any(file.name.startswith(f"{given.name},") for file in folder.iterdir()):
        raise ConfigError(f"{key}={path}: does not exist; quote a path with a comma: {key}=\"'NAME,WITH,COMMA'\"")
    hint = nearest(given.name, beside) if 0 < len(beside) <= _MOST_NAMES else f"{folder} holds {len(beside)} data files"
    raise ConfigError(f"{key}={path}: does not exist; {hint}")


def _other_form(file: Path) -> str:
    """How a file of another kind becomes one that is read."""
    if file.name.lower().endswith(SUFFIXES):
        return f"; rename it to {file.name.lower()}"
    reader = {".csv": "csv(FILE)", ".tsv": r"csv(FILE, sep='\t')", ".xlsx": "excel(FILE)"}.get(file.suffix.lower())
    written = f"{file.stem}.jsonl', orient='records', lines=True)"
    return f"; convert it: pandas.read_{reader}.to_json('{written}" if reader else ""


def _is_data(file: Path) -> bool:
    if not file.name.endswith(SUFFIXES) or file.name in _NO_DATA or file.name.startswith("."):
        return False
    saved = file.parent / _SAVED
    return file.suffix != ".arrow" or not saved.is_file() or file.name in _files_saved(saved)


def _files_saved(state: Path) -> frozenset[str]:
    """The data files of a save_to_disk folder."""
    try:
        listed = json.loads(state.read_text(encoding="utf-8")).get("_data_files") or []
        return frozenset(str(entry["filename"]) for entry in listed)
    except (ValueError, TypeError, KeyError, AttributeError):
        raise ConfigError(f"{state}: cannot be read as the list of files that save_to_disk writes") from None


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
    if file.suffix == ".arrow":
        with _arrow(file) as batches:
            return list(batches.schema.names)
    names: dict[str, None] = {}
    for number, (_, row) in enumerate(json_lines(file)):
        if number >= looked_at:
            break
        if not isinstance(row, BadRow):
            names.update(dict.fromkeys(row))
    return list(names)


def num_rows(file: Path) -> int:
    """Rows of a file, bad ones too; 0 where counting would cost as much as reading."""
    if file.suffix == ".parquet":
        return int(_parquet(file).metadata.num_rows)
    if file.suffix in (".gz", ".arrow"):
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
    if file.suffix in (".parquet", ".arrow"):
        return arrow_rows(file, columns)
    return json_lines(file)


def arrow_rows(file: Path, columns: Sequence[str] | None) -> Iterator[tuple[int, dict[str, Any] | BadRow]]:
    """Yields (row number from 1, row) of a Parquet file, or of an Arrow file that save_to_disk wrote."""
    import pyarrow

    number = 0
    form = "Parquet" if file.suffix == ".parquet" else "Arrow"
    with _refusing(file, form, pyarrow.ArrowException, OSError):
        for batch in _batches(file, columns):
            try:
                rows = batch.to_pylist()
            except UnicodeDecodeError:  # Arrow does not look at the bytes of its texts before Python does
                rows = [_row_of(batch, index) for index in range(batch.num_rows)]
            for row in rows:
                number += 1
                yield number, row


def _batches(file: Path, columns: Sequence[str] | None) -> Iterator[Any]:
    """Batches of at most ROWS_AT_ONCE rows, of the columns that are named."""
    if file.suffix == ".parquet":
        table = _parquet(file)
        wanted = None if columns is None else [name for name in table.schema_arrow.names if name in columns]
        yield from table.iter_batches(batch_size=ROWS_AT_ONCE, columns=wanted)
        return
    with _arrow(file) as batches:
        for batch in batches:
            kept = batch if columns is None else batch.select([n for n in batch.schema.names if n in columns])
            for start in range(0, kept.num_rows, ROWS_AT_ONCE):
                yield kept.slice(start, ROWS_AT_ONCE)


@contextlib.contextmanager
def _arrow(file: Path) -> Iterator[Any]:
    """The record batches of an Arrow stream."""
    import pyarrow

    with (
        _refusing(file, "Arrow", pyarrow.ArrowException, OSError),
        pyarrow.memory_map(str(file)) as mapped,
        pyarrow.ipc.open_stream(mapped) as batches,
    ):
        yield batches


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
        ConfigError: if the file is one JSON array, in UTF-16, or a damaged archive.
    """
    opened = gzip.open if file.suffix == ".gz" else open
    with _refusing(file, "gzip", EOFError, OSError), opened(file, "rb") as stream:
        for number, line in enumerate(_lines(stream), 1):
            if number == 1 and line.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)):
                raise ConfigError(f"{file}: is written in UTF-16; save it as UTF-8")
            if not line.strip():
                continue
            if len(line) > MOST_LINE_BYTES:
                reason = f"a line of more than {MOST_LINE_BYTES // 2**20} MiB; one object a line is needed (JSON Lines)"
                yield number, BadRow("not_json", "", reason)
                continue
            if number == 1 and ".json" in file.suffixes and line.removeprefix(b"\xef\xbb\xbf").lstrip()[:1] == b"[":
                raise ConfigError(f"{file}: is one JSON array; one object a line is needed (JSON Lines)")
            yield number, _json_row(line, "utf-8-sig" if number == 1 else "utf-8")


def _lines(stream: Any) -> Iterator[bytes]:
    """The lines of a stream, of which too long ones are not kept whole."""
    while line := stream.readline(MOST_LINE_BYTES + 1):
        if len(line) > MOST_LINE_BYTES:
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = stream.readline(2**20)
        yield line


def _json_row(line: bytes, encoding: str) -> dict[str, Any] | BadRow:
    try:
        row = json.loads(line.decode(encoding), object_pairs_hook=_object)
    except BadRow as bad:
        return bad
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


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """A JSON object, whose keys must differ: of two values Python would keep the last."""
    found = dict(pairs)
    if len(found) < len(pairs):
        name = next(name for index, (name, _) in enumerate(pairs) if name in dict(pairs[:index]))
        raise BadRow("bad_value", name, "stands twice in one object")
    return found


@contextlib.contextmanager
def _refusing(file: Path, form: str, *errors: type[Exception]) -> Iterator[None]:
    try:
        yield
    except errors as error:
        said = str(error).splitlines() or [type(error).__name__]
        raise ConfigError(f"{file}: cannot be read as {form}: {said[0]}") from None
