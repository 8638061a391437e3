"""Preference pairs in TRL's forms: standard or conversational, with the prompt apart or as both sides' beginning."""

from collections import Counter
from collections.abc import Sequence

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, prompt_from, prompt_of, text_of, turns_of, value_of
from alignlab.data.readers.source import Source, by_objective
from alignlab.data.records import Prompt, RankedRow, Turn
from alignlab.data.report import BadRow

SIDES = ("chosen", "rejected")


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    conversational = isinstance(value_of(row, "chosen"), list)
    if "prompt" in row:
        prompt = prompt_of(row, "prompt")
        sides = [_last_answer(turns_of(row, side), side) if conversational else text_of(row, side) for side in SIDES]
    elif conversational:
        prompt, sides = _shared_turns(*(turns_of(row, side) for side in SIDES))
    else:
        prompt, sides = shared_text(*(text_of(row, side) for side in SIDES))
    return [RankedRow(prompt, tuple(sides), by_objective(config, (1.0, 0.0)))]


def _last_answer(turns: Sequence[Turn], side: str) -> str:
    """The one turn of a completion."""
    if [turn.role for turn in turns] != ["assistant"]:
        found = " ".join(turn.role for turn in turns) or "none"
        raise BadRow("bad_value", side, f"must be one turn of the assistant, is {found}")
    return turns[0].content


def _shared_turns(chosen: Sequence[Turn], rejected: Sequence[Turn]) -> tuple[Prompt, list[str]]:
    """The turns that both sides begin with, and what each says then."""
    limit = min(len(chosen), len(rejected)) - 1  # identical conversations still differ in nothing but their last answer
    shared = next((index for index in range(limit) if chosen[index] != rejected[index]), max(limit, 0))
    if not shared:
        raise BadRow("bad_value", "rejected", "shares no turn with chosen, so there is no prompt; give a column prompt")
    return prompt_from(chosen[:shared], "chosen"), [
        _last_answer(side[shared:], name) for side, name in zip((chosen, rejected), SIDES, strict=True)
    ]


def shared_text(chosen: str, rejected: str) -> tuple[str, list[str]]:
    """The text that both sides begin with, cut back to the end of a word, and the rest of each.

    A cut inside a word would give the model half a word to go on from, and the cut's token would be of neither side.
    """
    if chosen == rejected:
        raise BadRow("identical", "rejected", "is the same as chosen")
    limit = min(len(chosen), len(rejected))
    shared = next((index for index in range(limit) if chosen[index] != rejected[index]), limit)
    while shared and not (chosen[shared - 1 : shared].isspace()):
        shared -= 1
    prompt = chosen[:shared].rstrip()
    if not prompt:
        raise BadRow(
            "bad_value", "rejected", "does not begin as chosen does, so there is no prompt; give a column prompt"
        )
    return prompt, [side[len(prompt) :] for side in (chosen, rejected)]


PAIRS = Source(columns=lambda config: SIDES, read=_read, responses=SIDES, also=("prompt",))
