"""Functions of prompt and response that can be a reward, and the reward that calls one.

Which names there are says `alignlab.config.programs`. A package adds its own by an entry point:

    [project.entry-points."alignlab.rewards"]
    polite = "my_package.rewards:polite"      # polite(prompt: str, response: str) -> float
"""

import re
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignlab.config.programs import program_version, programs
from alignlab.data.records import Prompt, prompt_text
from alignlab.models.prompts import PromptEncoder
from alignlab.rewards.base import LARGEST, TextReward, is_score

Program = Callable[[str, str], float]

REFUSALS = re.compile(
    r"\b(i('m| am) (sorry|unable|not able)|sorry,? (but )?i|i must (decline|refuse)|as an ai\b"
    r"|i (can('?t|not)|won't|will not) (do|help|assist|provide|answer))",
    re.IGNORECASE,
)
"""Openings by which a response refuses; a list of words, so it misses some and takes some others for refusals."""


def brief(prompt: str, response: str) -> float:
    """Minus the length in hundreds of words."""
    return -len(response.split()) / 100


def complete(prompt: str, response: str) -> float:
    """1 where the response ends as a sentence does, else 0: what was cut off or breaks off."""
    return float(bool(re.search(r"""[.!?\u2026\u3002\uff01\uff1f]["'\u201d\u2019)\]]*\s*$""", response)))


def distinct(prompt: str, response: str) -> float:
    """Share of different ones among all runs of three words, 0..1; 1 for fewer than three words."""
    words = response.split()
    runs = list(zip(words, words[1:], words[2:], strict=False))
    return len(set(runs)) / len(runs) if runs else 1.0


def refusal(prompt: str, response: str) -> float:
    """1 where one of the first 200 characters' sentences refuses by a common phrase, else 0."""
    return float(bool(REFUSALS.search(response[:200])))


class ProgramReward(TextReward):
    """A function by its name. Never kept between runs: what its code reads cannot be known.

    Args:
        name: one of alignlab.config.programs.programs().
        encoder: reads tokens back into texts.
        negate: a high score is bad.
        key: what its settings stand under, for errors.
    """

    def __init__(self, name: str, encoder: PromptEncoder, *, negate: bool, key: str = "reward") -> None:
        super().__init__(f"python:{name}:{program_version(name)}{':negated' if negate else ''}", encoder)
        self.name, self._key, self._sign = name, key, -1.0 if negate else 1.0
        self._program: Program = programs()[name].load()

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """The function's values, shape (n,).

        Raises:
            ValueError: if one is no number, not finite or above LARGEST; names the row, counted from 0.
        """
        values = [self._program(prompt_text(prompt), text) for prompt, text in zip(prompts, responses, strict=True)]
        for row, value in enumerate(values):
            if not is_score(value):
                rule = f"row {row} scores {value!r:.40}, must be a finite number of at most {LARGEST:g} in size"
                raise ValueError(f"{self._key}.function={self.name}: {rule}")
        return torch.tensor([self._sign * float(value) for value in values], dtype=torch.float32)
