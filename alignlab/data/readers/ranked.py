"""Ranked lists: any number of responses to a prompt, best first or with scores; alignlab's own synthesis among them."""

import math
from collections import Counter
from typing import Any

from alignlab.config.schema import C2SynConfig, DatasetConfig
from alignlab.data.rankings import BENIGN, FEWEST, HARMFUL, rankings
from alignlab.data.readers.fields import Row, check_responses, check_unicode, list_of, prompt_of, wrong_type
from alignlab.data.readers.source import Source, by_objective
from alignlab.data.records import RankedRow
from alignlab.data.report import BadRow, LeftOut

RANK = "rank"
"""The label of an objective that ranks by the order of the responses, or by a plain list of scores."""


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    prompt, responses = prompt_of(row, "prompt"), _responses(row)
    scores = {
        name: _scores(row, objective.label, len(responses))
        for name, objective in config.objectives.items()
        if objective.label is not None
    }
    return [RankedRow(prompt, responses, scores)]


def _responses(row: Row, least: int = 2) -> tuple[str, ...]:
    responses = list_of(row, "responses")
    for index, response in enumerate(responses):
        if not isinstance(response, str):
            raise wrong_type(f"responses.{index}", "text", response)
        check_unicode(f"responses.{index}", response)
    if len(responses) < least:
        raise BadRow("bad_value", "responses", f"must hold {least} at least, holds {len(responses)}")
    check_responses(responses, [f"responses.{index}" for index in range(len(responses))])
    return tuple(responses)


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


def _synthesised(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    """The pairs of one request that dataset.pairs asks for; the responses come best first."""
    assert isinstance(config, C2SynConfig)
    prompt, responses = prompt_of(row, "prompt"), _responses(row, least=FEWEST)
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


COLUMNS = ("prompt", "responses")
RANKED = Source(columns=lambda config: COLUMNS, read=_read, responses=(), also=("scores",))
C2_SYN = Source(columns=lambda config: COLUMNS, read=_synthesised, responses=(), also=("kind", "correction_start"))
