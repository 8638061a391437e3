"""Prompts alone, in the prompt columns of the known sets."""

from collections import Counter
from collections.abc import Iterable, Sequence

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, object_of, prompt_from, text_of, turns_of
from alignlab.data.readers.hh import conversation
from alignlab.data.readers.prompt_columns import PROMPT_COLUMNS, REQUESTS, request_turns, says_something, with_system
from alignlab.data.readers.single import helpsteer_prompt
from alignlab.data.readers.source import Source, categories_of
from alignlab.data.records import Prompt, RankedRow, Turn
from alignlab.data.report import BadRow, Report

TEXTS = ("history", "forbidden_prompt", "Goal", "Behavior", "goal", "behavior", "text")
"""Columns that hold a request as text: SHP's, StrongREJECT's, JailbreakBench's, HarmBench's."""
CONVERSATIONS = ("chosen",)
"""HH-RLHF's, and pairs of conversations: the prompt is the conversation up to its last answer."""
OBJECTS = {"info": "post"}
"""summarize_from_feedback's."""
CATEGORIES = ("category", "Category", "SemanticCategory", "response_0_harm_category", "response_1_harm_category")
ANSWERED = "conversations whose last answer was left out"
REPEATED = "repeated prompts"


def prompt_in(row: Row, notes: Counter[str] | None = None) -> Prompt:
    """The prompt of a row of any known set.

    Raises:
        BadRow: if no column holds one, or what it holds is none.
    """
    if isinstance(row.get("history"), str) or not any(says_something(row.get(name)) for name in REQUESTS):
        turns, column = _of_another_column(row)
    else:
        turns, column = request_turns(row) or [], "prompt"
        if len(turns) == 1 and "<extra_id_1>" in turns[0].content:
            return helpsteer_prompt(turns[0].content)
    answers = len(turns) - next((index for index in range(len(turns), 0, -1) if turns[index - 1].role == "user"), 0)
    if answers and notes is not None:
        notes[ANSWERED] += 1
    return prompt_from(turns[: len(turns) - answers], column)


def _of_another_column(row: Row) -> tuple[Sequence[Turn], str]:
    for column in TEXTS:
        if says_something(row.get(column)):
            return with_system(row, [Turn("user", text_of(row, column))]), column
    for column, field in OBJECTS.items():
        if says_something(row.get(column)):
            return [Turn("user", text_of(object_of(row, column), field))], f"{column}.{field}"
    for column in CONVERSATIONS:
        if isinstance(row.get(column), list):
            return with_system(row, turns_of(row, column)), column
        if isinstance(row.get(column), str) and row[column].lstrip().startswith("Human:"):
            return conversation("\n\n" + row[column].lstrip(), column), column
    return request_turns(row) or _refuse(row), "prompt"


def _refuse(row: Row) -> list[Turn]:
    names = ", ".join((*REQUESTS, *TEXTS))
    raise BadRow("missing_column", "prompt", f"is missing; a prompt is read from one of {names}")


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    categories = sorted({name for column in CATEGORIES for name in categories_of(row.get(column))})
    return [RankedRow(prompt_in(row, notes), (), {}, categories=tuple(categories))]


def _gather(rows: Iterable[RankedRow], config: DatasetConfig, report: Report) -> list[RankedRow]:
    given = list(rows)
    once = {(row.split, row.prompt): row for row in reversed(given)}
    if len(once) < len(given):
        report.left_out[REPEATED] += len(given) - len(once)
    return [row for row in given if once[row.split, row.prompt] is row]


PROMPTS = Source(
    columns=lambda config: (),
    read=_read,
    responses=(),
    one_of=(*REQUESTS, *TEXTS, *OBJECTS, *CONVERSATIONS),
    also=(*PROMPT_COLUMNS, *CATEGORIES),
    gather=_gather,
    repeats=True,
)
