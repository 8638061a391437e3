"""Ranked lists: any number of responses to a prompt, best first or with scores; alignlab's own synthesis among them."""

import math
from collections import Counter
from typing import Any

from alignlab.config.schema import C2SynConfig, DatasetConfig
from alignlab.data.rankings import BENIGN, FEWEST, HARMFUL, rankings
from alignlab.data.readers.fields import Row, check_responses, check_unicode, list_of, object_of, wrong_type
from alignlab.data.readers.prompt_columns import PROMPT_COLUMNS, REQUESTS, row_prompt
from alignlab.data.readers.source import Source, by_objective, labels_of
from alignlab.data.records import RankedRow, as_said
from alignlab.data.report import BadRow, LeftOut
from alignlab.data.texts import canonical, is_blank
from alignlab.errors import nearest

RANK = "rank"
"""The label of an objective that ranks by the order of the responses, or by a plain list of scores."""


REPEATED = "responses left out, empty or said before"


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, responses = row_prompt(row), _responses(row)
    scores = {name: _scores(row, label, len(responses)) for name, label in labels_of(config).items()}
    return [RankedRow(prompt, responses, scores)]


def _scored(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    """Responses that a policy gave, each scored by every objective; one that was given twice counts once.

    `labels`, in the same form, take the place of the scores, as where labels were drawn from these.
    """
    prompt, responses, scores = row_prompt(row), _texts(row), object_of(row, "scores")
    first: dict[str, int] = {}
    for index, response in enumerate(responses):
        if not is_blank(response):
            first.setdefault(canonical(response), index)
    notes[REPEATED] += len(responses) - len(first)
    if len(first) < 2:
        raise LeftOut("prompts with fewer than two different responses")
    kept = list(first.values())
    found = {}
    for name, label in labels_of(config).items():
        if label not in scores:
            raise BadRow("missing_column", f"scores.{label}", f"is missing; {nearest(label, map(str, scores))}")
        drawn = isinstance(row.get("labels"), dict) and label in row["labels"]
        values = _scores({"scores": row["labels"]} if drawn else row, label, len(responses))
        found[name] = tuple(values[index] for index in kept)
    return [RankedRow(prompt, tuple(responses[index] for index in kept), found)]


def _responses(row: Row, least: int = 2) -> tuple[str, ...]:
    responses = _texts(row)
    if len(responses) < least:
        raise BadRow("bad_value", "responses", f"must hold {least} at least, holds {len(responses)}")
    check_responses(responses, [f"responses.{index}" for index in range(len(responses))])
    return tuple(responses)


def _texts(row: Row) -> list[str]:
    responses = list_of(row, "responses")
    for index, response in enumerate(responses):
        if not isinstance(response, str):
            raise wrong_type(f"responses.{index}", "text", response)
        check_unicode(f"responses.{index}", response)
    finish = row.get("finish")
    if not isinstance(finish, list) or len(finish) != len(responses):
        return responses
    return [as_said(*both) for both in zip(responses, finish, strict=True)]


def _scores(row: Row, label: str, num: int) -> tuple[float | None, ...]:
    """One score a response. An objective that a row's scores do not name says nothing of it."""
    scores = row.get("scores")
    if scores is None:
        return _by_rank(num) if label == RANK else (None,) * num
    column = "scores"
    if isinstance(scores, dict):
        if scores.get(label) is None:
            return (None,) * num
        scores, column = scores[label], f"scores.{label}"
    elif label != RANK:
        return (None,) * num
    if not isinstance(scores, list):
        raise wrong_type(column, "a list with one score a response", scores)
    if len(scores) != num:
        raise BadRow("bad_value", column, f"must hold one score a response, holds {len(scores)} for {num}")
    return tuple(_score(score, f"{column}.{index}") for index, score in enumerate(scores))


def _score(score: Any, column: str) -> float | None:
    if score is None:
        return None
    if isinstance(score, bool) or not isinstance(score, int | float):
        raise wrong_type(column, "a number or null", score)
    if not math.isfinite(score):
        raise BadRow("bad_value", column, f"must be a finite number, is {score}")
    return float(score)


def _by_rank(num: int) -> tuple[float, ...]:
    return tuple(float(num - 1 - index) for index in range(num))


def _synthesised(row: Row, config: C2SynConfig, notes: Counter[str]) -> list[RankedRow]:
    """The pairs of one request that dataset.pairs asks for; the responses come best first."""
    prompt, responses = row_prompt(row), _responses(row, least=FEWEST)
    kind = row.get("kind", HARMFUL)
    if kind not in (HARMFUL, BENIGN):
        raise BadRow("bad_value", "kind", f"must be {HARMFUL} or {BENIGN}, is {kind!r}")
    chosen = rankings(config.pairs, len(responses), kind=kind)
    if not chosen:
        raise LeftOut("requests with one correction, which has no earlier or later one")
    starts = _correction_starts(row, responses)
    return [
        RankedRow(
            prompt,
            tuple(responses[index] for index in part.indices),
            by_objective(config, part.scores),
            correction_starts=tuple(starts[index] for index in part.indices) if starts else (),
        )
        for part in chosen
    ]


def _correction_starts(row: Row, responses: tuple[str, ...]) -> tuple[int | None, ...]:
    """Characters of each response before its correction, null for one that corrects nothing; () without the column."""
    starts = row.get("correction_start")
    if starts is None:
        return ()
    if not isinstance(starts, list) or len(starts) != len(responses):
        raise wrong_type("correction_start", "a list with one number or null a response", starts)
    for index, (start, response) in enumerate(zip(starts, responses, strict=True)):
        good = start is None or (isinstance(start, int) and not isinstance(start, bool) and 0 <= start < len(response))
        if not good:
            raise BadRow("bad_value", f"correction_start.{index}", "must be null, or lie within the response")
    return tuple(starts)


SYNTHESIS_COLUMNS = (
    "id",
    "request_id",
    "rank",
    "role",
    "cut_tokens",
    "at_clause",
    "tokens",
    "affirmative_prefix",
    "correction_phrase",
    "finish",
    "seed",
    "generator",
    "revision",
)
"""What a synthesis writes beside what is read."""
RANKED = Source(
    columns=lambda config: ("responses",), read=_read, responses=(), one_of=REQUESTS, also=("scores", *PROMPT_COLUMNS)
)
SCORED = Source(
    columns=lambda config: ("responses", "scores"),
    read=_scored,
    responses=(),
    one_of=REQUESTS,
    also=(*PROMPT_COLUMNS, "labels", "finish"),
)
C2_SYN = Source(
    columns=lambda config: ("prompt", "responses"),
    read=_synthesised,
    responses=(),
    also=("kind", "correction_start", *PROMPT_COLUMNS),
    published=SYNTHESIS_COLUMNS,
)
