"""Source: how one raw row of a kind of data set becomes ranked rows."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row
from alignlab.data.records import RankedRow
from alignlab.data.report import Report

Config = TypeVar("Config", bound=DatasetConfig, contravariant=True)


@dataclass(frozen=True)
class Source(Generic[Config]):
    """One kind of preference set, read by its own settings."""

    columns: Callable[[Config], Sequence[str]]
    """Columns without which no row can be used."""
    read: Callable[[Row, Config, Counter[str]], list[RankedRow]]
    """The ranked rows of one raw row, without their location; raises BadRow or LeftOut, and counts what it mends in the
    notes. Of a source that holds one response a row, each has one response."""
    prompt: str = "prompt"
    """The field that the prompt is taken from."""
    responses: Sequence[str] = ("response_0", "response_1")
    """The fields that the responses are taken from; none where read has checked them itself."""
    one_of: Sequence[str] = ()
    """Columns of which a file must have one."""
    also: Sequence[str] = ()
    """Columns that are read where they are there."""
    published: Sequence[str] = ()
    """Columns that the set is known to have and that say nothing of a preference: never named as unread."""
    gather: Callable[[Iterable[RankedRow], Config, Report], list[RankedRow]] | None = None
    """Joins the single responses of a source to ranked rows, over the whole source."""
    repeats: bool = False
    """A response may come several times, as each annotator's label is a row of its own."""

    def reads(self, config: Config) -> list[str]:
        """Every column that is read where it is there."""
        return [*dict.fromkeys([*self.columns(config), *self.one_of, *self.also])]


def ranked_two(better: int) -> tuple[float, float]:
    """Scores of two responses of which one is better."""
    return (0.0, 1.0) if better else (1.0, 0.0)


def by_objective(config: DatasetConfig, scores: tuple[float | None, ...]) -> dict[str, tuple[float | None, ...]]:
    """The same scores for every objective with labels; for the sources that rank by one thing alone."""
    return {name: scores for name, objective in config.objectives.items() if objective.label is not None}


def labels_of(config: DatasetConfig) -> dict[str, str]:
    """Objective -> label, of those that have one."""
    return {name: objective.label for name, objective in config.objectives.items() if objective.label is not None}


def labels(config: DatasetConfig) -> list[str]:
    """The labels of the objectives that have one."""
    return list(labels_of(config).values())


def categories_of(value: object) -> tuple[str, ...]:
    """The categories that a column holds: a name, a list of names, or an object of names with true or false."""
    if isinstance(value, str):
        return (value,) if value.strip() else ()
    if isinstance(value, dict):
        return tuple(sorted(str(name) for name, holds in value.items() if holds is True))
    if isinstance(value, list):
        return tuple(sorted({name for name in value if isinstance(name, str) and name.strip()}))
    return ()
