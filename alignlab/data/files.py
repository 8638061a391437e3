"""JSONL and Parquet rows with the place they came from. Imports pyarrow only for Parquet."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from alignlab.config.errors import ConfigError, nearest

SUFFIXES = (".jsonl", ".json", ".parquet")


def data_files(path: str | Path, *, key: str = "dataset.path") -> list[Path]:
    """The data files that a path means: itself, or those of a folder.

    Raises:
        ConfigError: if there is none; names the nearest file beside a missing one.
    """
    given = Path(path)
    if given.is_file():
        return [given]
    if given.is_dir():
        files = sorted(file for file in given.rglob("*") if file.suffix in SUFFIXES)
        if files:
            return files
        raise ConfigError(f"{key}={path}: holds no {', '.join(SUFFIXES)} file")
    beside = [file.name for file in given.parent.glob("*")] if given.parent.is_dir() else []
    hint = nearest(given.name, beside) if 0 < len(beside) <= 20 else "no such file or folder"
    raise ConfigError(f"{key}={path}: does not exist; {hint}")


def column_names(file: Path) -> list[str]:
    """The columns of a file, from the Parquet schema or the first JSON row."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        return list(pyarrow.parquet.read_schema(file).names)
    _, row = next(json_rows(file), (0, {}))
    return list(row)


def read_rows(file: Path) -> Iterator[tuple[str, dict[str, Any]]]:
    """Yields (place, row); the place reads `train.jsonl:5`, and counts Parquet rows from 1 as well."""
    if file.suffix == ".parquet":
        import pyarrow.parquet

        table = pyarrow.parquet.ParquetFile(file)
        number = 0
        for batch in table.iter_batches():
            for row in batch.to_pylist():
                number += 1
                yield f"{file.name}:{number}", row
    else:
        for number, row in json_rows(file):
            yield f"{file.name}:{number}", row


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
                row = json.loads(line.decode("utf-8"))
            except UnicodeDecodeError as error:
                raise ConfigError(f"{file}:{number}: byte {error.start} is not UTF-8") from None
            except json.JSONDecodeError as error:
                raise ConfigError(f"{file}:{number}: not JSON, column {error.colno}: {error.msg}") from None
            if not isinstance(row, dict):
                raise ConfigError(f"{file}:{number}: must be a JSON object, is {type(row).__name__}")
            yield number, row
