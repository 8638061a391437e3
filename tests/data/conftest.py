"""Data sets as conf/ composes them, and files in both formats."""

import dataclasses
import functools
import json

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from alignlab.config.hydra.compose import composing, register, run_config


@functools.cache
def composed_run(choice):
    from hydra import compose

    register()
    overrides = [f"dataset={choice}", "algorithm=dpo"]
    if choice != "toy":
        overrides += ["model=scratch", "dataset.path=rows.jsonl"]
    with composing():
        return run_config(compose("config", overrides=overrides, return_hydra_config=True))


def composed(choice):
    """The dataset of a choice."""
    return composed_run(choice).dataset


@pytest.fixture
def dataset_of():
    """A dataset of conf/, with other settings: `dataset_of("shp", path=file, min_score_ratio=None)`."""

    def build(choice, **changes):
        changes = {name: str(value) if name == "path" else value for name, value in changes.items()}
        return dataclasses.replace(composed(choice), **changes)

    return build


@pytest.fixture
def run_with(dataset_of):
    """A DPO run on such a dataset."""
    return lambda choice, **changes: dataclasses.replace(composed_run(choice), dataset=dataset_of(choice, **changes))


def write_rows(path, rows):
    """Rows as JSON Lines or Parquet, by the file's name."""
    if path.suffix == ".parquet":
        pq.write_table(pa.Table.from_pylist(rows), path)
    else:
        path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


@pytest.fixture(params=[".jsonl", ".parquet"])
def file_of(request, tmp_path):
    """Writes rows to a file, once in each format."""

    def write(rows, name="rows"):
        return write_rows(tmp_path / f"{name}{request.param}", rows)

    return write
