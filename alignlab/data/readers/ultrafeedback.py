"""UltraFeedback: up to four completions of an instruction, rated overall and by four aspects."""

import math
from collections import Counter
from collections.abc import Iterable
from typing import Any

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, list_of, object_of, text_of, value_of, wrong_type
from alignlab.data.readers.source import Source, labels
from alignlab.data.records import RankedRow
from alignlab.data.report import BadRow, LeftOut

OVERALL = "overall_score"
ASPECTS = ("instruction_following", "honesty", "truthfulness", "helpfulness")
NO_RATING = ("n/a", "na", "none", "")
"""Text instead of a rating that was not given. Ratings are texts, and as text "N/A" would be above "5"."""
TRUE_TEN = 4.0
"""An overall score of 10 whose aspects (1 to 5) have a lower mean says nothing: the set's annotation turned ratings of
1 into 10 (OpenBMB/UltraFeedback#8: "a true 10 score should correspond to high fine-grained scores")."""
WRONG_TEN = "overall scores of 10 that were a 1"
REPEATED = "completions left out, empty or said before"


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, completions = text_of(row, "instruction"), list_of(row, "completions")
    if len(completions) < 2:
        raise LeftOut("instructions with fewer than two completions")
    rated: dict[str, tuple[str, dict[str, float | None]]] = {}
    for index, completion in enumerate(completions):
        text, ratings = _completion(completion, f"completions.{index}", config, notes)
        if text.strip():
            rated.setdefault(text.strip(), (text, ratings))
    if len(rated) < 2:
        raise BadRow("identical", "completions", "hold no two different responses")
    notes[REPEATED] += len(completions) - len(rated)
    scores = {
        name: tuple(ratings[objective.label] for _, ratings in rated.values())
        for name, objective in config.objectives.items()
        if objective.label is not None
    }
    return [RankedRow(prompt, tuple(text for text, _ in rated.values()), scores)]


def _completion(
    completion: Any, where: str, config: DatasetConfig, notes: Counter[str]
) -> tuple[str, dict[str, float | None]]:
    """A response and its ratings by label."""
    if not isinstance(completion, dict):
        raise wrong_type(where, "an object with response and annotations", completion)
    try:
        return text_of(completion, "response"), _ratings(completion, set(labels(config)), notes)
    except BadRow as bad:
        raise BadRow(bad.kind, f"{where}.{bad.column}", bad.reason) from None


def _ratings(completion: Row, wanted: set[str], notes: Counter[str]) -> dict[str, float | None]:
    needed = set(ASPECTS) if OVERALL in wanted else wanted
    annotations = object_of(completion, "annotations")
    ratings = {aspect: _aspect(annotations, aspect) for aspect in ASPECTS if aspect in needed}
    if OVERALL in wanted:
        overall = _number(value_of(completion, OVERALL), OVERALL)
        wrong = is_wrong_ten(overall, ratings.values())
        notes[WRONG_TEN] += wrong
        ratings[OVERALL] = None if wrong else overall
    return ratings


def is_wrong_ten(overall: float | None, aspects: Iterable[float | None]) -> bool:
    """Whether an overall score of 10 was a 1."""
    known = [rating for rating in aspects if rating is not None]
    return overall == 10 and bool(known) and sum(known) / len(known) < TRUE_TEN


def _aspect(annotations: Row, aspect: str) -> float | None:
    """One aspect's rating; None where it was not given, or the aspect does not apply."""
    annotation = annotations.get(aspect)
    if annotation is None:
        return None
    if not isinstance(annotation, dict):
        raise wrong_type(f"annotations.{aspect}", "an object with Rating", annotation)
    rating = annotation.get("Rating")
    return None if rating is None else _number(rating, f"annotations.{aspect}.Rating")


def _number(value: Any, column: str) -> float | None:
    """A rating as a number; None for a text that says that there is none."""
    if isinstance(value, str) and value.strip().lower() in NO_RATING:
        return None
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        raise wrong_type(column, "a rating", value)
    try:
        number = float(value)
    except ValueError:
        raise wrong_type(column, "a number or N/A", value) from None
    if not math.isfinite(number):
        raise BadRow("bad_value", column, f"must be a finite number, is {number}")
    return number


ULTRAFEEDBACK = Source(
    columns=lambda config: ("instruction", "completions"),
    read=_read,
    prompt="instruction",
    responses=(),
    published=("source", "models", "correct_answers", "incorrect_answers"),
)
