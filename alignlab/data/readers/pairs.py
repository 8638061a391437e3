"""Preference pairs in the field's forms: texts or messages, with the prompt apart or as both sides' beginning.

TRL's four forms; the alignment handbook's (a prompt as text beside whole conversations); ShareGPT's and Alpaca's, as
LLaMA-Factory has them (conversations or instruction and input, chosen, rejected).
"""

import re
from collections import Counter
from collections.abc import Sequence

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, prompt_from, text_of, turn_from, turns_of, value_of
from alignlab.data.readers.hh import conversation
from alignlab.data.readers.prompt_columns import PROMPT_COLUMNS, request_column, request_turns, with_system
from alignlab.data.readers.source import Source, by_objective
from alignlab.data.records import Prompt, RankedRow, Turn
from alignlab.data.report import BadRow
from alignlab.data.texts import DIFFERENCE, canonical

SIDES = ("chosen", "rejected")
Side = str | list[Turn]
_COLON = re.compile(r"(?:^|(?<=\s))(?:Assistant|ASSISTANT|Answer|Response|Bot|AI|A)[ \t]*:")
"""Begins an answer in a text whose requests begin as _ASKS has it."""
_ASKS = re.compile(r"\s*(?:Human|HUMAN|User|USER|Question|Prompt|Instruction|H|Q)[ \t]*:")
_TOKENS = re.compile(
    r"<\|im_start\|>assistant\n?|<\|assistant\|>\n?|<\|start_header_id\|>assistant<\|end_header_id\|>\n*"
    r"|<start_of_turn>model\n?|\[/INST\]|### ?(?:Response|Assistant|Answer):?\n*"
)
"""Begins an answer in a chat template, whatever is before it."""
_LONG_ENOUGH = 16
"""Characters of a prompt that two answers do not both begin with by chance."""
_REMEDY = "give a column prompt, or messages"


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    sides = [_side(row, name) for name in SIDES]
    if row.get("messages") is not None and row["messages"] in (row["chosen"], row["rejected"]):
        row = {name: value for name, value in row.items() if name != "messages"}  # one side once more
    texts = [side for side in sides if isinstance(side, str)]
    turns = [side for side in sides if not isinstance(side, str)]
    column = request_column(row)
    whole = len(turns) == len(SIDES) and all(len(side) > 1 for side in turns)
    unsaid = whole and column is not None and row[column] is None  # the conversations hold the request
    given = None if unsaid else request_turns(row)
    if len(texts) == len(turns):
        raise BadRow("wrong_type", "rejected", "must be of the same form as chosen: both text, or both messages")
    if turns:
        prompt, answers = _of_turns(row, given, *turns)
    else:
        prompt, answers = _of_texts(row, given, *texts)
    return [RankedRow(prompt, tuple(answers), by_objective(config, (1.0, 0.0)))]


def _side(row: Row, name: str) -> Side:
    value = value_of(row, name)
    if isinstance(value, list):
        return turns_of(row, name)
    return [turn_from(value, name)] if isinstance(value, dict) else text_of(row, name)


def _of_texts(row: Row, given: list[Turn] | None, chosen: str, rejected: str) -> tuple[Prompt, list[str]]:
    if given is None:
        prompt, answers = shared_text(chosen, rejected)
        turns = [Turn("user", prompt)] if isinstance(prompt, str) else list(prompt)
        return prompt_from(with_system(row, turns), "chosen"), answers
    talks = _talks(chosen, rejected)
    if talks is not None:
        return _of_turns(row, given, *talks)
    last = given[-1].content if given else ""
    if len(last) >= _LONG_ENOUGH and chosen.startswith(last) and rejected.startswith(last):
        raise BadRow(
            "bad_value", "chosen", "begins with the prompt, as rejected does; remove it from both, or the prompt"
        )
    return prompt_from(given, request_column(row) or "prompt"), [chosen, rejected]


def _of_turns(
    row: Row, given: list[Turn] | None, chosen: Sequence[Turn], rejected: Sequence[Turn]
) -> tuple[Prompt, list[str]]:
    """The prompt and both answers: each side is one answer, or a whole conversation that ends in one."""
    if given is not None and len(chosen) == len(rejected) == 1:
        prompt = prompt_from(given, request_column(row) or "prompt")
        return prompt, [_last_answer(side, name) for side, name in zip((chosen, rejected), SIDES, strict=True)]
    shared, answers = _shared_turns(chosen, rejected)
    asked = with_system(row, shared)
    if given is not None and not _is_of(given, asked):
        column = request_column(row)
        raise BadRow("contradictory", str(column), f"is not what the conversations ask; dataset.ignore=[{column}]")
    return prompt_from(asked, "chosen"), answers


def _is_of(given: Sequence[Turn], asked: Sequence[Turn]) -> bool:
    """Whether a prompt is that of a conversation: all of it, or one request of it, as the handbook's sets have it."""

    def bare(turns: Sequence[Turn]) -> list[tuple[str, str]]:
        return [(turn.role, canonical(turn.content)) for turn in turns if turn.role != "system"]

    own, whole = bare(given), bare(asked)
    return own == whole or (len(own) == 1 and own[0] in whole)


def _alike(one: Turn, other: Turn) -> bool:
    return one.role == other.role and canonical(one.content) == canonical(other.content)


def _last_answer(turns: Sequence[Turn], side: str) -> str:
    """The one turn of a completion."""
    if [turn.role for turn in turns] != ["assistant"]:
        found = " ".join(turn.role for turn in turns) or "none"
        raise BadRow("bad_value", side, f"must be one turn of the assistant, is {found}")
    return turns[0].content


def _shared_turns(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> tuple[Sequence[Turn], list[str]]:
    """The turns that both sides begin with, and what each says then."""
    limit = min(len(chosen), len(rejected)) - 1  # identical conversations still differ in nothing but their last answer
    shared = next((index for index in range(limit) if chosen[index] != rejected[index]), max(limit, 0))
    if shared < limit and all(_alike(*pair) for pair in zip(chosen[shared:limit], rejected[shared:limit], strict=True)):
        reason = f"turn {shared + 1} differs from chosen's only in {DIFFERENCE}; write it as there"
        raise BadRow("bad_value", "rejected", reason)
    if not shared:
        raise BadRow("bad_value", "rejected", f"shares no turn with chosen, so there is no prompt; {_REMEDY}")
    answers = [_last_answer(side[shared:], name) for side, name in zip((chosen, rejected), SIDES, strict=True)]
    return chosen[:shared], answers


def _talks(chosen: str, rejected: str) -> list[Sequence[Turn]] | None:
    """Both sides as conversations, where both are written as HH-RLHF has it."""
    if not all(side.lstrip().startswith("Human:") for side in (chosen, rejected)):
        return None
    return [conversation("\n\n" + side.lstrip(), name) for name, side in zip(SIDES, (chosen, rejected), strict=True)]


def shared_text(chosen: str, rejected: str) -> tuple[Prompt, list[str]]:
    """The turns that both texts begin with, and what each says then.

    Only what marks the beginning of an answer ends a prompt: two answers to different questions begin alike too, and a
    model would be asked half a sentence.
    """
    if chosen == rejected:
        raise BadRow("identical", "rejected", "is the same as chosen")
    talks = _talks(chosen, rejected)
    if talks is not None:
        turns, answers = _shared_turns(*talks)
        return prompt_from(turns, "chosen"), answers
    limit = min(len(chosen), len(rejected))
    shared = next((index for index in range(limit) if chosen[index] != rejected[index]), limit)
    marks = [*_TOKENS.finditer(chosen, 0, shared), *(_COLON.finditer(chosen, 0, shared) if _ASKS.match(chosen) else ())]
    if not marks:
        turn = " up to the end of a turn" if shared else ""
        raise BadRow("bad_value", "rejected", f"does not begin as chosen does{turn}, so there is no prompt; {_REMEDY}")
    last = max(marks, key=lambda mark: mark.end())
    for name, side in zip(SIDES, (chosen, rejected), strict=True):
        if last.group().strip() in side[last.end() :]:
            raise BadRow("bad_value", name, f"goes on with another turn of the assistant; {_REMEDY}")
    return chosen[: last.end()], [side[last.end() :] for side in (chosen, rejected)]


PAIRS = Source(columns=lambda config: SIDES, read=_read, responses=SIDES, also=PROMPT_COLUMNS)
