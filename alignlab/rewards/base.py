"""What a reward is: one object that serves as a MODPO margin while training and as a scorer afterwards."""

from collections.abc import Sequence
from typing import Protocol

from torch import Tensor

from alignlab.data.records import Prompt, text_id
from alignlab.models.prompts import Encoded, PromptEncoder


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
        prompts = [self.encoder.raw_prompt(row.prompt_ids) if row.prompt is None else row.prompt for row in rows]
        cut = self.encoder.response_text
        return self.score(prompts, [cut(row.response_ids) if row.response is None else row.response for row in rows])


def text_key(row: tuple[Prompt, str]) -> str:
    """Hash of prompt and response: what a score depends on, beside the reward."""
    prompt, response = row
    parts = (prompt,) if isinstance(prompt, str) else (part for turn in prompt for part in (turn.role, turn.content))
    return text_id("text" if isinstance(prompt, str) else "turns", *parts, response)
