"""Rows of a dataset on the hub. Imports datasets when it is called; never runs a dataset's own code."""

from collections.abc import Iterator
from itertools import chain
from typing import Any

from alignlab.config.schema import FileConfig
from alignlab.data.located import Columns, Located, table_rows
from alignlab.data.report import Report
from alignlab.errors import ConfigError


def hub_rows(config: FileConfig, columns: Columns, report: Report) -> tuple[Iterator[Located], str | None]:
    """The rows of the splits that the config names, and their commit (None where the hub cannot be asked).

    Args:
        config: of the dataset.
        columns: how a row is read.
        report: takes what was left out.

    Raises:
        ConfigError: if the dataset cannot be loaded, or lacks a column.
    """
    revision = _commit(config)
    tables = {"train": _table(config, config.train_split, revision)}
    if config.test_split is not None:
        tables["test"] = _table(config, config.test_split, revision)
    given = len(tables) > 1
    streams = []
    for split, table in tables.items():
        name = f"{config.hub}/{split}" if given else str(config.hub)
        columns.check(name, table.column_names, report)
        wanted = [column for column in table.column_names if column in columns.wanted]
        streams.append(table_rows(table.select_columns(wanted), name, split if given else None, columns))
    return chain.from_iterable(streams), revision


def _table(config: FileConfig, split: str, revision: str | None) -> Any:
    import datasets

    try:
        return datasets.load_dataset(
            config.hub, name=config.subset, data_dir=config.data_dir, split=split, revision=revision or config.revision
        )
    except Exception as error:  # network, access, names: datasets and the hub's client raise some twenty kinds
        said = str(error).splitlines() or [""]
        raise ConfigError(
            f"dataset.hub={config.hub}: cannot be loaded ({type(error).__name__}: {said[0]:.200}); "
            "without a network give dataset.path=FILE"
        ) from None


def _commit(config: FileConfig) -> str | None:
    """The commit that a revision stands for today."""
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(str(config.hub), revision=config.revision).sha)
    except Exception:  # offline, with the dataset in the cache perhaps: load_dataset then says what is wrong
        return None
