"""Reads a preference set into ranked rows. PKU-SafeRLHF's columns are the toy's columns too."""

from collections.abc import Iterable
from itertools import islice
from pathlib import Path
from typing import Any

from alignlab.config.errors import ConfigError, nearest
from alignlab.config.schema import DatasetConfig, FileConfig, ToyConfig
from alignlab.data import toy
from alignlab.data.files import column_names, data_files, read_rows
from alignlab.data.records import RankedRow
from alignlab.data.splits import split_of

TEXT_COLUMNS = ("prompt", "response_0", "response_1")


NUM_ROWS_LOOKED_AT = 500
"""Rows of each file that are checked before anything starts; the rest are checked when they are read."""


def check_source(config: DatasetConfig) -> None:
    """Looks at the files that a dataset names: their columns and their first rows.

    Raises:
        ConfigError: if a file or a needed column is missing, or one of these rows cannot be used.
    """
    if isinstance(config, FileConfig) and config.path is not None:
        for file in data_files(config.path):
            columns = column_names(file)
            if columns:
                _check_columns(columns, file, config)
            first = [_ranked_row(row, place, config) for place, row in islice(read_rows(file), NUM_ROWS_LOOKED_AT)]
            if not first:
                raise ConfigError(f"dataset.path={file}: holds no rows")


def read_ranked_rows(config: DatasetConfig, path: Path | None = None) -> list[RankedRow]:
    """All rows of a dataset, in its order: from `path`, else dataset.path, else the hub.

    Raises:
        ConfigError: `file:line field: reason` for the first row that cannot be used.
    """
    local = path or getattr(config, "path", None)
    located: Iterable[tuple[str, dict[str, Any]]]
    if local is not None:
        located = ((place, row) for file in data_files(local) for place, row in read_rows(file))
    else:
        located = _hub_rows(config)
    rows = [_ranked_row(row, place, config) for place, row in located]
    if not rows:
        raise ConfigError(f"dataset.path={local or getattr(config, 'hub', None)}: holds no rows")
    return rows


def select_split(rows: Iterable[RankedRow], config: DatasetConfig, split: str | None) -> list[RankedRow]:
    """The rows whose prompt falls into the split (None: all), at most dataset.max_rows of them."""
    salt = toy.SPLIT_SALT if isinstance(config, ToyConfig) else ""
    chosen = [row for row in rows if split is None or split_of(row.prompt, config.test_share, salt=salt) == split]
    return chosen[: config.max_rows]


def _hub_rows(config: DatasetConfig) -> Iterable[tuple[str, dict[str, Any]]]:
    import datasets

    assert isinstance(config, FileConfig)
    table = datasets.load_dataset(config.hub, revision=config.revision, split="train")
    _check_columns(table.column_names, Path(str(config.hub)), config)
    return ((f"{config.hub}:{number}", row) for number, row in enumerate(table, 1))


def _check_columns(columns: list[str], file: Path, config: DatasetConfig) -> None:
    labels = (objective.label for objective in config.objectives.values() if objective.label is not None)
    for needed in (*TEXT_COLUMNS, *labels):
        if needed not in columns:
            raise ConfigError(f"dataset.path={file}: lacks the column {needed!r}; {nearest(needed, columns)}")


def _ranked_row(row: dict[str, Any], place: str, config: DatasetConfig) -> RankedRow:
    for column in TEXT_COLUMNS:
        value = row.get(column)
        if not isinstance(value, str):
            raise ConfigError(f"{place} {column}: must be text, is {type(value).__name__}")
    scores: dict[str, tuple[float | None, ...]] = {}
    for name, objective in config.objectives.items():
        if objective.label is None:
            continue
        label = row.get(objective.label)
        if label not in (0, 1) or isinstance(label, bool):
            raise ConfigError(f"{place} {objective.label}: must be 0 or 1, is {label!r}")
        scores[name] = (0.0, 1.0) if label else (1.0, 0.0)
    return RankedRow(row["prompt"], (row["response_0"], row["response_1"]), scores, place)
