"""JSONL and Parquet rows with the place they came from. Imports pyarrow only for Parquet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.config.errors import ConfigError, nearest

SUFFIXES = (".jsonl", ".json", ".parquet")
_MOST_NAMES = 20
"""Files beside a missing one that an error still lists."""


def data_files(path: str | Path, *, key: str = "dataset.path") -> list[Path]:
    """The data files that a path means: itself, or those of a folder.

    Raises:
        ConfigError: if there is none, or its kind is unknown; names the nearest file beside a missing one.
    """
    given = Path(path)
    kinds = ", ".join(SUFFIXES)
    if given.is_file():
        if given.suffix not in SUFFIXES:
            raise ConfigError(f"{key}={path}: must end in one of {kinds}")
        return [given]
    if given.is_dir():
        files = sorted(file for file in given.rglob("*") if file.suffix in SUFFIXES and file.is_file())
        if files:
            return files
        raise ConfigError(f"{key}={path}: the folder holds no {kinds} file")
    folder = given.parent
    if not folder.is_dir():
        raise ConfigError(f"{key}={path}: does not exist; there is no folder {folder} either")
    beside = [file.name for file in folder.iterdir() if file.suffix in SUFFIXES]
    hint = nearest(given.name, beside) if 0 < len(beside) <= _MOST_NAMES else f"{folder} holds {len(beside)} data files"
    raise ConfigError(f"{key}={path}: does not exist; {hint}")


def column_names(file: Path) -> list[str]:
    """The columns of a file, from the Parquet schema or the first JSON row; of an empty file none."""
    if file.suffix == ".parquet":
        return list(_parquet(file).schema_arrow.names)
    _, row = next(json_rows(file), (0, {}))
    return list(row)


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, row); the place reads `train.jsonl:5`, and counts Parquet rows from 1 as well."""
    if file.suffix == ".parquet":
        number = 0
        for batch in _parquet(file).iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{file.name}:{number}", row
    else:
        for number, row in json_rows(file):
            yield f"{file.name}:{number}", row


def _parquet(file: Path) -> Any:
    import pyarrow
    import pyarrow.parquet

    try:
        return pyarrow.parquet.ParquetFile(file)
    except (pyarrow.ArrowException, OSError) as error:
        raise ConfigError(f"{file}: cannot be read as Parquet: {str(error).splitlines()[0]}") from None


def json_rows(file: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Yields (line number, object) of a JSONL file.

    Raises:
        ConfigError: `file:line: reason` for a torn line, bytes that are not UTF-8, or a row that is no object.
    """
    with file.open("rb") as stream:
        for number, line in enumerate(stream, 1):
            if not line.strip():
                continue
            try:
                row = json.loads(line.decode("utf-8-sig" if number == 1 else "utf-8"))
            except UnicodeDecodeError as error:
                raise ConfigError(f"{file}:{number}: byte {error.start} is not UTF-8") from None
            except json.JSONDecodeError as error:
                reason = f"not JSON, column {error.colno}: {error.msg}; one object a line is needed (JSON Lines)"
                raise ConfigError(f"{file}:{number}: {reason}") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{file}:{number}: must be a JSON object, is a {type(row).__name__}")
            yield number, row
