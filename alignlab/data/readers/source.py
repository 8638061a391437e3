"""Source: how one raw row of a kind of data set becomes ranked rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row
from alignlab.data.records import RankedRow
from alignlab.data.report import Report


@dataclass(frozen=True)
class Source:
    """One kind of preference set."""

    columns: Callable[[DatasetConfig], Sequence[str]]
    """Columns without which no row can be used."""
    read: Callable[[Row, DatasetConfig, Counter[str]], list[RankedRow]]
    """The ranked rows of one raw row, without their location; raises BadRow or LeftOut, and counts what it mends in the
    notes. Of a source that holds one response a row, each has one response."""
    prompt: str = "prompt"
    """The field that the prompt is taken from."""
    responses: Sequence[str] = ("response_0", "response_1")
    """The fields that the responses are taken from; none where read has checked them itself."""
    also: Sequence[str] = ()
    """Columns that are looked at where they are there."""
    gather: Callable[[Iterable[RankedRow], DatasetConfig, Report], list[RankedRow]] | None = None
    """Joins the single responses of a source to ranked rows, over the whole source."""
    repeats: bool = False
    """A response may come several times, as each annotator's label is a row of its own."""


def ranked_two(better: int) -> tuple[float, float]:
    """Scores of two responses of which one is better."""
    return (0.0, 1.0) if better else (1.0, 0.0)


def by_objective(config: DatasetConfig, scores: tuple[float | None, ...]) -> dict[str, tuple[float | None, ...]]:
    """The same scores for every objective with labels; for the sources that rank by one thing alone."""
    return {name: scores for name, objective in config.objectives.items() if objective.label is not None}


def labels(config: DatasetConfig) -> list[str]:
    """The labels of the objectives that have one."""
    return [objective.label for objective in config.objectives.values() if objective.label is not None]
