"""Reads one field of a raw row, or says what is wrong with it."""

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignlab.data.records import Prompt, Turn, as_prompt
from alignlab.data.report import BadRow
from alignlab.errors import nearest

Row = Mapping[str, Any]
"""A row as its file holds it."""
ROLES = ("system", "user", "assistant")
_TYPES: tuple[tuple[type, str], ...] = (
    (bool, "true or false"),
    (int, "a number"),
    (float, "a number"),
    (str, "text"),
    (list, "a list"),
    (dict, "an object"),
    (bytes, "bytes"),
)


def value_of(row: Row, column: str) -> Any:
    """A value that is there.

    Raises:
        BadRow: if the column is missing, or null.
    """
    if column not in row:
        raise BadRow("missing_column", column, f"is missing; {nearest(column, map(str, row))}")
    if row[column] is None:
        raise BadRow("null", column, "is null")
    return row[column]


def text_of(row: Row, column: str) -> str:
    """A text, empty or not.

    Raises:
        BadRow: also for half a surrogate pair, which JSON can write and no tokenizer can read.
    """
    value = value_of(row, column)
    if not isinstance(value, str):
        raise wrong_type(column, "text", value)
    if not value.isascii():
        check_unicode(column, value)
    return value


def check_unicode(column: str, text: str) -> None:
    """Refuses half a surrogate pair."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise BadRow(
            "not_utf8", column, f"character {error.start} is half a surrogate pair, which is no text"
        ) from None


def choice_of(row: Row, column: str) -> int:
    """A label that names the first or the second response, 0 or 1."""
    value = value_of(row, column)
    if isinstance(value, bool) or not isinstance(value, int | float):  # pandas writes 1.0 where a column holds nulls
        raise wrong_type(column, "0 or 1", value)
    if value not in (0, 1):
        raise BadRow("bad_value", column, f"must be 0 or 1, is {value}")
    return int(value)


def flag_of(row: Row, column: str) -> bool:
    """True or false; 0 and 1 as well."""
    value = value_of(row, column)
    if isinstance(value, int) and value in (0, 1):
        return bool(value)
    raise wrong_type(column, "true or false", value)


def number_of(row: Row, column: str) -> float:
    """A finite number."""
    value = value_of(row, column)
    if isinstance(value, bool) or not isinstance(value, int | float):
        raise wrong_type(column, "a number", value)
    if not math.isfinite(value):
        raise BadRow("bad_value", column, f"must be a finite number, is {value}")
    return float(value)


def object_of(row: Row, column: str) -> Row:
    """An object with fields of its own."""
    value = value_of(row, column)
    if not isinstance(value, dict):
        raise wrong_type(column, "an object", value)
    return value


def list_of(row: Row, column: str) -> list[Any]:
    """A list."""
    value = value_of(row, column)
    if not isinstance(value, list):
        raise wrong_type(column, "a list", value)
    return value


def turns_of(row: Row, column: str) -> list[Turn]:
    """The messages of a conversation, `[{"role": ..., "content": ...}, ...]`."""
    turns = []
    for index, message in enumerate(list_of(row, column)):
        where = f"{column}.{index}"
        if not isinstance(message, dict):
            raise wrong_type(where, "a message with role and content", message)
        try:
            role, content = text_of(message, "role"), text_of(message, "content")
        except BadRow as bad:
            raise BadRow(bad.kind, f"{where}.{bad.column}", bad.reason) from None
        if role not in ROLES:
            raise BadRow("bad_value", f"{where}.role", f"is {role!r:.40}; {nearest(role, ROLES)}")
        turns.append(Turn(role, content))
    return turns


def prompt_of(row: Row, column: str) -> Prompt:
    """A plain request, or a conversation that ends in a user turn."""
    if not isinstance(value_of(row, column), list):
        return text_of(row, column)
    return prompt_from(turns_of(row, column), column)


def prompt_from(turns: Iterable[Turn], column: str) -> Prompt:
    """The prompt that these turns make.

    Raises:
        BadRow: if there is none, if the last is not the user's, or if one says nothing.
    """
    known = list(turns)
    if not known:
        raise BadRow("empty", column, "holds no turn")
    if known[-1].role != "user":
        raise BadRow("bad_value", column, f"must end in a turn of the user, ends in one of the {known[-1].role}")
    return as_prompt(known)


def check_responses(responses: Sequence[str], fields: Sequence[str]) -> None:
    """Refuses empty responses, and responses that differ in nothing but the blanks around them.

    Args:
        responses: of one row.
        fields: where each stands in it.

    Raises:
        BadRow: naming the first field at fault.
    """
    stripped = [response.strip() for response in responses]
    for response, field in zip(stripped, fields, strict=True):
        if not response:
            raise BadRow("empty", field, "is empty")
    if len(set(stripped)) < len(stripped):
        later = next(index for index, response in enumerate(stripped) if response in stripped[:index])
        raise BadRow("identical", fields[later], f"is the same as {fields[stripped.index(stripped[later])]}")


def wrong_type(column: str, wanted: str, value: Any) -> BadRow:
    """The fault of a value of another type."""
    found = next((name for kind, name in _TYPES if isinstance(value, kind)), type(value).__name__)
    shown = f" ({str(value)!r:.24})" if isinstance(value, str | int | float) else ""
    return BadRow("null" if value is None else "wrong_type", column, f"must be {wanted}, is {found}{shown}")
