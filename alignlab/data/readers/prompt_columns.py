"""The prompt of a row, in whichever of the field's columns it stands."""

from collections.abc import Sequence
from typing import Any

from alignlab.data.readers.fields import Row, list_of, prompt_from, text_of, turns_of, value_of, wrong_type
from alignlab.data.readers.hh import conversation
from alignlab.data.records import Prompt, Turn, as_prompt
from alignlab.data.report import BadRow
from alignlab.data.texts import is_blank

REQUESTS = ("prompt", "question", "instruction", "query", "messages", "conversations", "conversation", "input")
"""Columns that hold a request, or a conversation that ends in one. Beside `instruction`, `input` is its second part."""
_MESSAGES = ("messages", "conversations", "conversation")
SYSTEM = ("system", "system_prompt")
PROMPT_COLUMNS = (*REQUESTS, "history", *SYSTEM)
"""All columns that a prompt is read from."""
_OTHER_NAMES = (
    *("system_message", "system_instruction", "system_instructions", "sys_prompt"),
    *("chat_history", "conversation_history", "dialog_history", "dialogue_history"),
    *("context", "contexts", "ContextString", "passage", "passages", "document", "documents", "tools", "functions"),
    *("image", "images", "audio", "audios", "video", "videos"),
)
CHANGES_THE_REQUEST = (
    *PROMPT_COLUMNS,
    *_OTHER_NAMES,
    *(name.capitalize() for name in (*PROMPT_COLUMNS, *_OTHER_NAMES) if name.islower()),
)
"""Columns that change what is asked: a source that does not read one refuses rows in which it says something."""


def row_prompt(row: Row) -> Prompt:
    """The prompt of a row.

    Raises:
        BadRow: if there is none, if several columns hold one, or if it does not end in a turn of the user.
    """
    turns = request_turns(row)
    if turns is None:
        raise BadRow("missing_column", "prompt", "is missing; give a column prompt")
    return prompt_from(turns, request_column(row) or "prompt")


def request_column(row: Row) -> str | None:
    """The column that holds the request, None where there is none.

    Raises:
        BadRow: if two columns hold one.
    """
    held = [name for name in REQUESTS if says_something(row.get(name))]
    if "instruction" in held and "input" in held:
        held.remove("input")
    if len(held) > 1:
        reason = f"and {held[0]} both hold a request; dataset.ignore=[{held[1]}] reads {held[0]} alone"
        raise BadRow("bad_value", held[1], reason)
    return held[0] if held else next((name for name in REQUESTS if name in row), None)


def request_turns(row: Row) -> list[Turn] | None:
    """The turns that the prompt columns of a row make, the system's first; None where no column holds a request.

    Raises:
        BadRow: for columns that contradict each other or hold what no turn is.
    """
    column = request_column(row)
    if column is None:
        return None
    if column in _MESSAGES or isinstance(value_of(row, column), list):
        turns = turns_of(row, column)
        if says_something(row.get("history")):
            raise BadRow("bad_value", "history", f"stands beside the turns of {column}; dataset.ignore=[history]")
    else:
        turns = [*_history(row), *_asked(_request(row, column), column)]
    return with_system(row, turns)


def with_system(row: Row, turns: Sequence[Turn]) -> list[Turn]:
    """The turns after what the row's system column says.

    Raises:
        BadRow: if they begin with another system turn, or two columns say different things.
    """
    for number, column in enumerate(SYSTEM):
        if says_something(row.get(column)):
            system = Turn("system", text_of(row, column))
            for other in SYSTEM[number + 1 :]:
                if says_something(row.get(other)) and text_of(row, other).strip() != system.content.strip():
                    raise BadRow("contradictory", other, f"differs from {column}; dataset.ignore=[{other}]")
            if turns and turns[0].role == "system":
                if turns[0].content.strip() != system.content.strip():
                    raise BadRow("contradictory", column, "differs from the system turn of the conversation")
                return list(turns)
            return [system, *turns]
    return list(turns)


def system_and(row: Row, request: str) -> Prompt:
    """A request in plain text, after what the row's system column says."""
    return as_prompt(with_system(row, [Turn("user", request)]))


def says_something(value: Any) -> bool:
    """Whether a value is more than null, a blank text, an empty list or object."""
    if isinstance(value, str):
        return not is_blank(value)
    return value is not None and value != [] and value != {}


def _request(row: Row, column: str) -> str:
    request = text_of(row, column)
    if column == "instruction" and says_something(row.get("input")):
        return f"{request}\n\n{text_of(row, 'input')}"
    return request


def _asked(request: str, column: str) -> Sequence[Turn]:
    """The turns of a request in plain text; one that is written as HH-RLHF has it is a conversation."""
    if not (request.lstrip().startswith("Human:") and request.rstrip().endswith("Assistant:")):
        return [Turn("user", request)]
    return conversation("\n\n" + request.lstrip(), column)[:-1]


def _history(row: Row) -> list[Turn]:
    """Earlier turns: pairs of request and answer, or messages."""
    if not says_something(row.get("history")):
        return []
    history = list_of(row, "history")
    if all(isinstance(turn, dict) for turn in history):
        return turns_of(row, "history")
    turns = []
    for index, pair in enumerate(history):
        if not (isinstance(pair, list) and len(pair) == 2 and all(isinstance(text, str) for text in pair)):
            raise wrong_type(f"history.{index}", "a pair of request and answer", pair)
        turns += [Turn("user", pair[0]), Turn("assistant", pair[1])]
    return turns
