"""HH-RLHF: two conversations as text, alike up to the assistant's last answer."""

import re
from collections import Counter
from collections.abc import Sequence

from alignlab.config.schema import DatasetConfig
from alignlab.data.readers.fields import Row, prompt_from, text_of
from alignlab.data.readers.source import Source, by_objective
from alignlab.data.records import RankedRow, Turn
from alignlab.data.report import BadRow

_TURN = re.compile(r"\n\n(Human|Assistant):")
SIDES = ("chosen", "rejected")
_ROLES = {"Human": "user", "Assistant": "assistant"}


def _read(row: Row, config: DatasetConfig, notes: Counter[str]) -> list[RankedRow]:
    chosen, rejected = (conversation(text_of(row, column), column) for column in SIDES)
    for column, turns in (("chosen", chosen), ("rejected", rejected)):
        if turns[-1].role != "assistant":
            raise BadRow("bad_value", column, "must end in a turn of the Assistant")
    if chosen[:-1] != rejected[:-1]:
        raise BadRow("bad_value", "rejected", "differs from chosen before the last answer, so they share no prompt")
    prompt = prompt_from(chosen[:-1], "chosen")
    return [RankedRow(prompt, (chosen[-1].content, rejected[-1].content), by_objective(config, (1.0, 0.0)))]


def conversation(text: str, column: str) -> Sequence[Turn]:
    r"""The turns of `\n\nHuman: ...\n\nAssistant: ...`; of one speaker in a row they are one turn.

    Raises:
        BadRow: if the text does not begin with the Human.
    """
    before, *pieces = _TURN.split(text)
    if before.strip() or not pieces or pieces[0] != "Human":
        raise BadRow("bad_value", column, r"must begin with '\n\nHuman:'")
    turns: list[Turn] = []
    for speaker, said in zip(pieces[::2], pieces[1::2], strict=True):
        role = _ROLES[speaker]
        if turns and turns[-1].role == role:
            turns[-1] = Turn(role, f"{turns[-1].content}\n\n{said.strip()}")
        else:
            turns.append(Turn(role, said.strip()))
    return turns


HH_RLHF = Source(columns=lambda config: SIDES, read=_read, prompt="chosen", responses=SIDES)
