"""Reads one field of a raw row, or says what is wrong with it."""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from alignlab.data.records import Prompt, Turn, as_prompt
from alignlab.data.report import BadRow
from alignlab.data.texts import DIFFERENCE, blank_text, canonical
from alignlab.errors import nearest

Row = Mapping[str, Any]
"""A row as its file holds it."""
ROLES = {"system": "system", "user": "user", "human": "user", "assistant": "assistant", "gpt": "assistant"}
"""Names of a message's role -> the role; `human` and `gpt` are ShareGPT's."""
_NOT_READ_OF_A_MESSAGE = (
    *("tool_calls", "tool_call_id", "function_call", "tools", "functions", "reasoning_content", "thinking"),
    *("image", "images", "audio", "audios", "video", "videos", "document", "documents", "files", "attachments"),
)
"""What changes a turn beside its text."""
_WRITTEN_MESSAGES = re.compile(
    r"""\[?\s*\{(?=[^{}]*["'](?:role|from)["']\s*:\s*["'](?:system|user|human|assistant|gpt)["'])"""
    r"""(?=[^{}]*["'](?:content|value)["']\s*:).*\}\s*\]?\s*""",
    re.DOTALL,
)
"""Messages as text, in JSON or as Python prints them."""
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
    if value[:1] in ("[", "{") and _WRITTEN_MESSAGES.fullmatch(value):
        raise BadRow("wrong_type", column, "is text that holds messages; write them as a list of objects, not as text")
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
    """The messages of a conversation: `[{"role": ..., "content": ...}, ...]`, or with `from` and `value`."""
    return [turn_from(message, f"{column}.{index}") for index, message in enumerate(list_of(row, column))]


def turn_from(message: Any, where: str) -> Turn:
    """One message as a turn.

    Args:
        message: an object with role and content, or as ShareGPT has it with `from` and `value`.
        where: its field, for errors.

    Raises:
        BadRow: for a role or a part of a message that is no text, such as a call of a tool.
    """
    if not isinstance(message, dict):
        raise wrong_type(where, "a message with role and content", message)
    said_by, said = ("role", "content") if message.get("from") is None else ("from", "value")
    try:
        role = text_of(message, said_by)
        content = _joined_parts(message[said]) if isinstance(message.get(said), list) else text_of(message, said)
    except BadRow as bad:
        raise BadRow(bad.kind, f"{where}.{bad.column}", bad.reason) from None
    if role not in ROLES:
        reason = f"is {role!r:.40}; {nearest(role, ('system', 'user', 'assistant'))}"
        raise BadRow("bad_value", f"{where}.{said_by}", reason)
    for part in _NOT_READ_OF_A_MESSAGE:
        if message.get(part):
            raise BadRow("bad_value", f"{where}.{part}", "is part of the turn and is not read; only its text is")
    return Turn(ROLES[role], content)


def _joined_parts(parts: list[Any]) -> str:
    """A content of several parts, each of text."""
    texts = [part.get("text") if isinstance(part, dict) and part.get("type") == "text" else None for part in parts]
    for index, text in enumerate(texts):
        if not isinstance(text, str):
            raise BadRow("wrong_type", f"content.{index}", "must be a part of type text, with text")
        check_unicode(f"content.{index}", text)
    return "".join(str(text) for text in texts)


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
    """Refuses empty responses, and two that differ in nothing but outer blanks and what `canonical` leaves out.

    Args:
        responses: of one row.
        fields: where each stands in it.

    Raises:
        BadRow: naming the first field at fault.
    """
    texts = [canonical(response) for response in responses]
    for text, response, field in zip(texts, responses, fields, strict=True):
        if not text:
            raise BadRow("empty", field, blank_text(response))
    if len(set(texts)) < len(texts):
        later = next(index for index, text in enumerate(texts) if text in texts[:index])
        first = texts.index(texts[later])
        same = responses[first].strip() == responses[later].strip()
        but = "" if same else f", but for its {DIFFERENCE}"
        raise BadRow("identical", fields[later], f"is the same as {fields[first]}{but}")


def wrong_type(column: str, wanted: str, value: Any) -> BadRow:
    """The fault of a value of another type.

    Args:
        column: of the row.
        wanted: what it must be.
        value: what it is.
    """
    found = next((name for kind, name in _TYPES if isinstance(value, kind)), type(value).__name__)
    shown = f" ({str(value)!r:.24})" if isinstance(value, str | int | float) else ""
    return BadRow("null" if value is None else "wrong_type", column, f"must be {wanted}, is {found}{shown}")
