"""Reads a preference set into ranked rows, checked; each source is read once a process."""

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from alignlab.config.names import RANKED_FILE
from alignlab.config.schema import C2SynConfig, DatasetConfig, FileConfig, ToyConfig
from alignlab.data.check import check_objectives, check_report, checked_rows
from alignlab.data.files import DataFile, data_files, num_rows, read_rows
from alignlab.data.located import Located, file_rows, without_collection
from alignlab.data.readers import SOURCES
from alignlab.data.records import RankedRow, ranked_pairs
from alignlab.data.report import Report
from alignlab.data.splits import split_of
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError

BAR_FROM_ROWS = 50_000
"""A set of as many rows is checked under a progress bar."""
_NOT_READING = ("name", "use", "split", "test_share", "max_rows", "beta", "on_bad_row", "max_bad_share", "overlap")
"""Settings of a dataset that do not change what its rows are."""


@dataclass(frozen=True)
class Loaded:
    """A source as it was read: its rows, and what was wrong with the others."""

    rows: list[RankedRow]
    report: Report
    revision: str | None = None
    """The hub's commit."""

    def as_record(self) -> dict[str, Any]:
        """The shape of result.json's `data`."""
        return self.report.as_record() | ({"revision": self.revision} if self.revision else {})


_last: dict[str, Loaded] = {}
"""The source that was read last, so that a sweep reads and checks it once."""


def load(config: DatasetConfig, *, max_length: int | None = None) -> Loaded:
    """All usable rows of a file, a folder or a hub dataset.

    Raises:
        ConfigError: the first bad rows and their totals, or that the source cannot be read at all.
    """
    assert isinstance(config, FileConfig)
    key = f"{reading_key(config)} {max_length}"
    if key not in _last:
        _last.clear()
        with without_collection():
            _last[key] = _read(config, max_length)
    check_report(config, _last[key].report)
    check_objectives(config, _last[key].rows, _last[key].report.source)
    return _last[key]


def reading_key(config: DatasetConfig) -> str:
    """What a source's rows depend on: its settings, and its files by size and time."""
    settings = {name: value for name, value in asdict(config).items() if name not in _NOT_READING}
    stats = [(str(file.path), file.path.stat().st_size, file.path.stat().st_mtime_ns) for file in files_of(config)]
    return f"{settings} {stats}"


def files_of(config: DatasetConfig) -> list[DataFile]:
    """The files that dataset.path means; none without one.

    Raises:
        ConfigError: if there is none to read.
    """
    path = getattr(config, "path", None)
    if path is None:
        return []
    if isinstance(config, C2SynConfig) and Path(path).is_dir():
        path = Path(path) / RANKED_FILE
        if not path.is_file():
            raise ConfigError(
                f"dataset.path={config.path}: holds no {RANKED_FILE}; give a finished synthesis run's folder"
            )
    return data_files(path)


def check_source(config: DatasetConfig, *, max_length: int | None = None, trained: str | None = None) -> None:
    """Checks every row of the files that a dataset names. A hub's rows are checked when the job reads them.

    Args:
        config: the dataset.
        max_length: tokens of prompt and response together; None checks no length.
        trained: the objective whose pairs are trained on, of which there must be one.

    Raises:
        ConfigError: the first bad rows and their totals, or that there is nothing to train on.
    """
    if isinstance(config, FileConfig) and config.path is not None:
        rows = load(config, max_length=max_length).rows
        if config.split is not None and not any(_split_of(row, config) == config.split for row in rows):
            raise ConfigError(f"dataset.split={config.split}: holds none of {len(rows):,} rows of {config.path}")
        if trained is not None and not any(next(ranked_pairs(row, trained), None) for row in rows):
            raise ConfigError(f"dataset.path={config.path}: ranks no two responses by {trained}")


def read_ranked_rows(
    config: DatasetConfig, path: Path | None = None, *, max_length: int | None = None
) -> list[RankedRow]:
    """All rows of a dataset, in its order: from `path`, a file that alignlab made, else from dataset.path or the hub.

    Raises:
        ConfigError: the first bad rows and their totals.
    """
    return _made_rows(config, path) if path is not None else load(config, max_length=max_length).rows


def select_split(rows: Iterable[RankedRow], config: DatasetConfig, split: str | None) -> list[RankedRow]:
    """The rows of a split (None: all), at most dataset.max_rows of them.

    A split is what the row's file says where a folder holds files of several, else a hash of the prompt decides.
    """
    chosen = [row for row in rows if split is None or _split_of(row, config) == split]
    return chosen[: config.max_rows]


def _split_of(row: RankedRow, config: DatasetConfig) -> str:
    salt = toy.SPLIT_SALT if isinstance(config, ToyConfig) else ""
    return row.split or split_of(row.prompt, config.test_share, salt=salt)


def _made_rows(config: DatasetConfig, path: Path) -> list[RankedRow]:
    """Rows that were sampled, which may repeat and hold the same response twice."""
    read, notes = SOURCES[config.kind].read, Report("").notes
    numbered = ((location, raw) for file in data_files(path) for location, raw in read_rows(file.path))
    return [replace(row, location=location) for location, raw in numbered for row in read(raw, config, notes)]


def _read(config: FileConfig, max_length: int | None) -> Loaded:
    source = SOURCES[config.kind]
    needed, revision = source.columns(config), None
    located: Iterator[Located]
    if config.path is not None:
        files = files_of(config)
        report = Report(f"dataset.path={config.path}")
        located = under_bar(file_rows(files, needed, source.also), sum(num_rows(file.path) for file in files))
    else:
        from alignlab.data.hub import hub_rows

        report = Report(f"dataset.hub={config.hub}")
        located, revision = hub_rows(config, needed, source.also)
    rows = checked_rows(config, located, report, max_length=max_length)
    if not report.rows:
        raise ConfigError(f"{report.source}: holds no rows")
    return Loaded(_with_test(rows), report, revision)


def _with_test(rows: list[RankedRow]) -> list[RankedRow]:
    """The rows, with those of a validation file as the held-out ones where there is no test file."""
    splits = {row.split for row in rows}
    if "validation" not in splits or "test" in splits:
        return rows
    return [replace(row, split="test") if row.split == "validation" else row for row in rows]


def under_bar(located: Iterator[Located], total: int) -> Iterator[Located]:
    """The same rows, under a progress bar where they are many."""
    if total < BAR_FROM_ROWS:
        yield from located
        return
    from alignlab.runs.progress import progress

    with progress("checking rows", total) as bar:
        for number, row in enumerate(located, 1):
            yield row
            if number % 1000 == 0:
                bar.advance(1000)
