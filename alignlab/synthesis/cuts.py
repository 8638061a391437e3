"""Where a harmful response is cut short, so that a correction can follow: at four depths, all different."""

import re
from bisect import bisect_left
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import pairwise

from alignlab.data.worlds import toy
from alignlab.models.prefill import CutAnswer
from alignlab.models.prompts import PromptEncoder

NUM_CUTS = 4
"""Depths of a response: after about one fifth, two, three and four."""

_CLAUSE_END = re.compile(
    r"[.,;:!?\u2026\u2014]+[\"')\]\u201d\u2019]*(?=\s)|[\u3002\uff0c\uff1b\uff1a\uff01\uff1f\u3001]+|\n+"
)
_TOY_CLAUSE_END = re.compile(rf"(?<=\w)(?= (?:{'|'.join(toy.OPENERS)})\b)")
_UNFINISHED = "\ufffd"
"""What a tokenizer makes of half a character."""


@dataclass(frozen=True)
class Cut:
    """One beginning of a response."""

    text: str
    tokens: int
    """Of the response, by the policy's tokenizer."""
    at_clause: bool


def cut_response(encoder: PromptEncoder, answer: CutAnswer, *, at_clauses: bool, is_toy: bool) -> list[Cut] | None:
    """Beginnings at NUM_CUTS depths, each longer than the last, none empty and none whole; None if it is too short.

    Args:
        encoder: tokenizer and template of the policy.
        answer: the affirmative prefix and the response in tokens.
        at_clauses: take the end of a clause instead of a depth where one lies within half the way to the next depth.
        is_toy: whether its sentences are the toy's, which have no punctuation.
    """
    whole = len(answer.answer_ids)
    if whole <= NUM_CUTS:
        return None
    read = _reader(encoder, answer)
    text = read(whole)
    spacing = whole / (NUM_CUTS + 1)
    positions = [round(spacing * depth) for depth in range(1, NUM_CUTS + 1)]
    ends: list[int] = []
    if at_clauses:
        ends = _token_positions(_clause_ends(text, is_toy=is_toy), read, whole)
        positions = _moved(positions, ends, within=spacing / 2)
    cuts = [Cut(read(position), position, position in ends) for position in positions]
    texts = ["", *(cut.text for cut in cuts), text]
    rising = all(len(one) < len(other) and other.startswith(one) for one, other in pairwise(texts))
    return cuts if rising else None


def _reader(encoder: PromptEncoder, answer: CutAnswer) -> Callable[[int], str]:
    """Number of tokens -> the response's text up to there, without a character that the next token would finish."""
    opened = _decode(encoder, answer.opener_ids)

    def read(tokens: int) -> str:
        text = _decode(encoder, [*answer.opener_ids, *answer.answer_ids[:tokens]])
        return text[len(opened) :].strip().rstrip(_UNFINISHED).rstrip() if text.startswith(opened) else ""

    return read


def _decode(encoder: PromptEncoder, ids: Sequence[int]) -> str:
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    return str(encoder.tokenizer.decode(list(ids), **options)).lstrip()


def _clause_ends(text: str, *, is_toy: bool) -> list[int]:
    """Where clauses have ended, in characters, rising."""
    return [found.end() for found in (_TOY_CLAUSE_END if is_toy else _CLAUSE_END).finditer(text)]


def _token_positions(ends: Sequence[int], read: Callable[[int], str], whole: int) -> list[int]:
    """The first number of tokens whose text reaches each of these characters."""
    lengths = [len(read(tokens)) for tokens in range(whole + 1)]
    for tokens in range(1, whole + 1):  # a cut character makes a text shorter than the one before
        lengths[tokens] = max(lengths[tokens], lengths[tokens - 1])
    return [bisect_left(lengths, end) for end in ends]


def _moved(wanted: Sequence[int], ends: Sequence[int], *, within: float) -> list[int]:
    """Each depth at the nearest clause's end that lies near it and that no other depth has taken."""
    positions: list[int] = []
    for depth in wanted:
        near = sorted((end for end in set(ends) if abs(end - depth) <= within), key=lambda end: (abs(end - depth), end))
        free = [end for end in near if end not in positions and (not positions or end > positions[-1])]
        positions.append(free[0] if free else depth)
    return positions
