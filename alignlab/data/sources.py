"""Reads a preference set into ranked rows, checked; each source is read once a process."""

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from copy import deepcopy
from dataclasses import asdict, dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import Any

from alignlab.config.names import RANKED_FILE
from alignlab.config.schema import C2SynConfig, DatasetConfig, FileConfig
from alignlab.config.schema.dataset import NO_RESPONSES, SPLIT_VERSION, SPLITS
from alignlab.data.check import MOST_BAD, check_objectives, check_report, checked_rows
from alignlab.data.files import DataFile, data_files, num_rows, read_rows
from alignlab.data.located import Columns, Located, file_rows, without_collection
from alignlab.data.overlap import check_overlap, held_out_prompts
from alignlab.data.readers import SOURCES
from alignlab.data.records import Prompt, RankedRow, ranked_pairs
from alignlab.data.report import BadRow, Report
from alignlab.data.splits import FIRST_REQUEST, deciding_text, split_of
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError

BAR_FROM_ROWS = 50_000
"""A set of as many rows is checked under a progress bar."""
_NOT_READING = (
    "name",
    "use",
    "split",
    "eval_split",
    "test_share",
    "dev_share",
    "split_by",
    "max_rows",
    "on_long",
    "keep",
    "beta",
    "on_bad_row",
    "max_bad_share",
    "overlap",
    "held_out",
    "near_duplicates",
)
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
"""The source that was read last, so that a sweep reads and checks it once; also without what is held out elsewhere."""

_last_made: dict[str, list[RankedRow]] = {}
"""The rows of the file that alignlab sampled and that was read last."""


def load(config: FileConfig, *, max_length: int | None = None) -> Loaded:
    """All usable rows of a file, a folder or a hub dataset.

    Raises:
        ConfigError: the first bad rows and their totals, or that the source cannot be read at all.
    """
    key = f"{reading_key(config)} {max_length}"
    if key not in _last:
        _last.clear()
        with without_collection():
            read = _read(config, max_length)
        if read.report.stopped:
            check_report(config, read.report)
        _last[key] = read
    loaded = _last[key]
    if config.held_out or config.near_duplicates is not None:
        key += f" {config.split} {split_settings(config)}"
        if key not in _last:
            _last[key] = _without_held_out(loaded, config)
        loaded = _last[key]
    check_report(config, loaded.report)
    check_objectives(config, loaded.rows, loaded.report.source)
    return loaded


def _without_held_out(loaded: Loaded, config: FileConfig) -> Loaded:
    """The rows without those to train on whose prompt is held out by dataset.held_out or is like one of another split.

    Where dataset.split is null, every row is one to train on.
    """
    split_of_row = splitter(loaded.rows, config)
    trained = [config.split is None or split_of_row(row) == "train" for row in loaded.rows]
    held_out = list(held_out_prompts(config.held_out))
    if config.near_duplicates is not None:
        rest = zip(loaded.rows, trained, strict=True)
        held_out += [(row.location, row.prompt) for row, is_trained in rest if not is_trained]
    rows = [row for row, is_trained in zip(loaded.rows, trained, strict=True) if is_trained]
    twins = check_overlap(
        [row.prompt for row in rows], [prompt for _, prompt in held_out], near_duplicates=config.near_duplicates
    )
    report, left_out = deepcopy(loaded.report), set()
    for row, twin in zip(rows, twins, strict=True):
        if twin is not None:
            report.add(row.location, BadRow("overlap", "prompt", f"is held out: it is that of {held_out[twin][0]}"))
            left_out.add(id(row))
    kept = [row for row in loaded.rows if id(row) not in left_out]
    report.records = len(kept)
    return Loaded(kept, report, loaded.revision)


def reading_key(config: FileConfig) -> str:
    """What a source's rows depend on: its settings, and its files by size and time."""
    return f"{_reading_settings(config)} {_stats(files_of(config))}"


def _reading_settings(config: DatasetConfig) -> dict[str, Any]:
    return {name: value for name, value in asdict(config).items() if name not in _NOT_READING}


def _stats(files: Iterable[DataFile]) -> list[tuple[str, int, int]]:
    return [(str(file.path), file.path.stat().st_size, file.path.stat().st_mtime_ns) for file in files]


def files_of(config: FileConfig) -> list[DataFile]:
    """The files that dataset.path means; none without one.

    Raises:
        ConfigError: if there is none to read.
    """
    if config.path is None:
        return []
    if isinstance(config, C2SynConfig) and Path(config.path).is_dir():
        ranked = Path(config.path) / RANKED_FILE
        if not ranked.is_file():
            raise ConfigError(
                f"dataset.path={config.path}: holds no {RANKED_FILE}; give a finished synthesis run's folder"
            )
        return data_files(ranked)
    return data_files(config.path)


def check_source(
    config: DatasetConfig, *, max_length: int | None = None, trained: str | None = None, prompts: int = 1
) -> None:
    """Checks every row of the files that a dataset names. A hub's rows are checked when the job reads them.

    Args:
        config: the dataset.
        max_length: tokens of prompt and response together; None checks no length.
        trained: the objective whose pairs are trained on, of which there must be one.
        prompts: of dataset.split that need pairs to train on, where they are more than one.

    Raises:
        ConfigError: the first bad rows and their totals, or that there is nothing or too little to train on.
    """
    if not isinstance(config, FileConfig) or config.path is None:
        return
    if config.kind == NO_RESPONSES and trained is not None:
        raise ConfigError(f"dataset={config.name}: holds prompts and no responses; choose one that ranks responses")
    rows = load(config, max_length=max_length).rows
    split_of_row = splitter(rows, config)
    if config.split is not None and not any(split_of_row(row) == config.split for row in rows):
        found = f"holds none of {len(rows):,} rows of {config.path}"
        raise ConfigError(f"dataset.split={config.split}: {found}{_one_request(rows, config)}")
    if trained is not None and not any(next(ranked_pairs(row, trained), None) for row in rows):
        raise ConfigError(f"dataset.path={config.path}: ranks no two responses by {trained}")
    if trained is not None and prompts > 1:
        used = select_split(rows, config, config.split)
        num_ranked = len({row.group for row in used if any(ranked_pairs(row, trained))})
        if num_ranked < prompts:
            where = "" if config.split is None else f" of its {config.split} split"
            ranks = f"ranks responses to {num_ranked} prompts{where} by {trained}; a probe needs {prompts} or more"
            raise ConfigError(f"dataset.path={config.path}: {ranks}")


def _one_request(rows: Sequence[RankedRow], config: FileConfig) -> str:
    """Why a split is empty, where it is because all conversations begin with one request."""
    if config.split_by != FIRST_REQUEST or len({row.group for row in rows}) < 2:
        return ""
    if len({deciding_text(row.prompt, FIRST_REQUEST) for row in rows}) > 1:
        return ""
    return "; all begin with one request, which decides the split: dataset.split_by=prompt takes the whole prompt"


def split_notice(rows: Sequence[RankedRow], config: DatasetConfig) -> str | None:
    """That a run on one split has no rows to be measured on, None where it has some."""
    if not isinstance(config, FileConfig) or config.split is None:
        return None
    split_of_row = splitter(rows, config)
    if any(split_of_row(row) == config.eval_split for row in rows):
        return None
    empty = f"dataset={config.name}: the {config.eval_split} split holds none of {len(rows):,} rows"
    return f"{empty}, so nothing is measured on held-out rows{_one_request(rows, config)}"


def read_ranked_rows(config: FileConfig, *, max_length: int | None = None) -> list[RankedRow]:
    """All usable rows of a file, a folder or a hub dataset, in its order.

    Raises:
        ConfigError: the first bad rows and their totals.
    """
    return load(config, max_length=max_length).rows


def select_split(rows: Iterable[RankedRow], config: DatasetConfig, split: str | None) -> list[RankedRow]:
    """The rows of a split (None: all), at most dataset.max_rows of them.

    A split is what the row's file says where a folder holds files of several, else a hash of the prompt decides.

    Args:
        rows: of all splits.
        config: of the dataset.
        split: its name; None for all.
    """
    known = list(rows)
    split_of_row = splitter(known, config)
    chosen = [row for row in known if split is None or split_of_row(row) == split]
    return chosen[: config.max_rows]


def splitter(rows: Iterable[RankedRow], config: DatasetConfig) -> Callable[[RankedRow], str]:
    """The function that says which split a row is of: train, dev or test.

    Where files name a dev split but no test split, dev is what is held out, unless dev is asked for by its name.
    A dev share is taken from the training rows, of files too where they name none.
    """
    if not isinstance(config, FileConfig):
        by_prompt = cache(partial(split_of, test_share=config.test_share, salt=toy.SPLIT_SALT))
        return lambda row: row.split or by_prompt(row.prompt)
    given = {row.split for row in rows} - {None}
    as_test = "dev" in given and "test" not in given and "dev" not in (config.split, config.eval_split)

    def hashed(row: RankedRow) -> str:
        return split_of(row.prompt, config.test_share, dev_share=config.dev_share, by=config.split_by)

    def split_of_row(row: RankedRow) -> str:
        if row.split is None:
            return hashed(row)
        if row.split == "train" and "dev" not in given and config.dev_share and hashed(row) == "dev":
            return "dev"
        return "test" if as_test and row.split == "dev" else row.split

    return split_of_row


def split_settings(config: DatasetConfig) -> list[object]:
    """Everything beside the rows that the training split is a function of, as plain JSON values."""
    if not isinstance(config, FileConfig):
        return [config.test_share]
    held_out = [_stats(data_files(path, key="dataset.held_out")) for path in config.held_out]
    return [SPLIT_VERSION, config.test_share, config.dev_share, config.split_by, config.near_duplicates, held_out]


def load_prompts(config: DatasetConfig, *, max_length: int | None = None) -> dict[str, list[Prompt]]:
    """Split -> prompts, each once, at most dataset.max_rows a split; of any dataset.

    Args:
        config: the dataset.
        max_length: tokens that a prompt must leave room in; None checks no length.

    Raises:
        ConfigError: the first bad rows and their totals, or that the source cannot be read at all.
    """
    if not isinstance(config, FileConfig):
        toys: dict[str, list[Prompt]] = {"train": [*toy.prompts("train")], "test": [*toy.prompts("test")]}
        return {split: prompts[: config.max_rows] for split, prompts in toys.items()}
    rows = load(config, max_length=max_length).rows
    found: dict[str, dict[Prompt, None]] = {split: {} for split in SPLITS}
    split_of_row = splitter(rows, config)
    for row in rows:
        found[split_of_row(row)][row.prompt] = None
    return {split: list(prompts)[: config.max_rows] for split, prompts in found.items() if prompts}


def made_rows(config: DatasetConfig, path: Path) -> list[RankedRow]:
    """Rows of a file that alignlab sampled, in its order; they may repeat and hold the same response twice.

    Read once a process while the file stays the same, as other sources are.
    """
    files = data_files(path)
    key = f"{_reading_settings(config)} {_stats(files)}"
    if key not in _last_made:
        _last_made.clear()
        read, notes = SOURCES[config.kind].read, Report("").notes
        with without_collection():
            _last_made[key] = [
                replace(row, location=location, split=file.split)
                for file in files
                for location, raw in read_rows(file.path)
                for row in read(raw, config, notes)
            ]
    return _last_made[key]


def _read(config: FileConfig, max_length: int | None) -> Loaded:
    columns, revision = columns_of(config), None
    located: Iterator[Located]
    total = 0
    if config.path is not None:
        files = files_of(config)
        report = Report(f"dataset.path={config.path}")
        total = sum(num_rows(file.path) for file in files)
        located = under_bar(file_rows(files, columns, report), total)
    else:
        from alignlab.data.hub import hub_rows

        report = Report(f"dataset.hub={config.hub}")
        located, revision = hub_rows(config, columns, report)
    most_bad = max(MOST_BAD, int(config.max_bad_share * total)) if config.on_bad_row == "drop" else MOST_BAD
    if config.on_bad_row == "drop" and not total:
        most_bad = sys.maxsize  # how many rows there are is not known
    rows = checked_rows(config, located, report, max_length=max_length, most_bad=most_bad)
    if not report.rows:
        raise ConfigError(f"{report.source}: holds no rows")
    return Loaded(rows, report, revision)


def columns_of(config: FileConfig) -> Columns:
    """Which columns of its files a dataset reads."""
    source = SOURCES[config.kind]
    return Columns(source.columns(config), source.one_of, source.also, source.published, config.ignore)


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
