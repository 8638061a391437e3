"""What a reward is: one object that serves as a MODPO margin while training and as a scorer afterwards."""

from collections.abc import Sequence
from numbers import Real
from typing import Protocol

from torch import Tensor

from alignlab.data.records import CutText, Prompt
from alignlab.io.hashes import text_digest
from alignlab.models.prompts import Encoded, PromptEncoder

LARGEST = 1e6
"""In size: beyond it float32 tells scores apart by a sixteenth and more, and a softmax of them is an argmax."""


def is_score(value: object) -> bool:
    """Whether a value is a finite number of at most LARGEST in size, as every score must be; NaN is in no range.

    NumPy's numbers are numbers; truth values are not, neither Python's nor NumPy's.
    """
    if not isinstance(value, Real) or isinstance(value, bool):
        return False
    try:
        return -LARGEST <= float(value) <= LARGEST  # as a float: LARGEST is infinite in half precision
    except OverflowError:  # an integer beyond all floats
        return False


class Reward(Protocol):
    """Scores responses; higher is better, so a cost enters negated."""

    id: str
    """What the scores depend on, beside the texts: goes into cache keys."""

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """float32 scores, shape (n,), in the reward's own unit."""
        ...

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for responses that are tokenised with the base model's template, shape (n,)."""
        ...

    def unscored(self) -> dict[str, int]:
        """Reason -> responses of the last call without a score (NaN); of most rewards there are none."""
        return {}

    def release(self) -> None:
        """Drops what it loaded to score; the next call loads it again."""


class TextReward(Reward):
    """A reward that reads texts, whatever the model that is trained reads.

    Args:
        encoder: the base model's; reads tokens back into texts where nobody kept these.
    """

    def __init__(self, reward_id: str, encoder: PromptEncoder) -> None:
        self.id, self.encoder = reward_id, encoder

    def release(self) -> None:
        """Nothing was loaded."""

    def score_encoded(self, rows: Sequence[Encoded]) -> Tensor:
        """The same for rows that are tokenised, shape (n,). A response that was cut is scored as it was cut."""
        texts = [texts_of(row, self.encoder) for row in rows]
        return self.score([prompt for prompt, _ in texts], [response for _, response in texts])


def as_text_row(prompt: Prompt, response: str) -> Encoded:
    """A row for the score cache that stands for texts: their hashes in place of tokens, which differ by tokenizer."""
    parts = (prompt,) if isinstance(prompt, str) else [part for turn in prompt for part in (turn.role, turn.content)]
    kind = "text" if isinstance(prompt, str) else "turns"
    said = ("cut", response) if isinstance(response, CutText) else (response,)
    return Encoded(list(text_digest(kind, *parts)), list(text_digest(*said)), prompt, response)


def texts_of(row: Encoded, encoder: PromptEncoder | None = None) -> tuple[Prompt, str]:
    """Prompt and response of a row.

    Args:
        row: which keeps its prompt.
        encoder: of its tokens, for rows that keep no response since a limit cut it.
    """
    assert row.prompt is not None
    if row.response is not None:
        return row.prompt, row.response
    assert encoder is not None
    return row.prompt, encoder.said(row)
