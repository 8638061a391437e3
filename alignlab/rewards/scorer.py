"""Rewards that a network of its own gives: loaded when a score is missing, asked in batches of like length."""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from alignlab.data.records import Prompt
from alignlab.engine.cache.scores import ScoreCache
from alignlab.models.base import free_memory
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.rewards.base import LARGEST, TextReward, as_text_row, texts_of
from alignlab.rewards.reading import Tokens
from alignlab.runs.progress import say, track

Scorer = Callable[[Sequence[Tokens]], Tensor]
"""Scores of tokenised texts, float32 on the CPU, shape (n,)."""


class Reader(Protocol):
    """Turns texts into what its network reads."""

    cut: int
    """Rows that were cut at the limit."""
    max_length: int

    def read_all(self, texts: Sequence[tuple[Prompt, str]]) -> Sequence[Any]:
        """Tokens of every (prompt, response)."""
        ...


Loaded = tuple[Reader, Callable[[Any], Tensor]]
"""A network's reader, and its scores of what that has read, on the CPU, shape (n,)."""


class ScorerReward(TextReward):
    """Scores of a network, kept by the hash of the text.

    Args:
        reward_id: weights, precision and reading of the scorer, without its sign.
        load: loads the network.
        sign: -1 where a high score is bad.
        cache: keeps the scores as the network gives them.
        encoder: the base model's; reads tokens back into texts.
        name: what the counts of the cache call it.
    """

    def __init__(
        self,
        reward_id: str,
        load: Callable[[], Loaded],
        *,
        sign: float,
        cache: ScoreCache,
        encoder: PromptEncoder,
        name: str,
    ) -> None:
        super().__init__(f"{reward_id}{':negated' if sign < 0 else ''}", encoder)
        self._scorer_id, self._load, self._sign = reward_id, load, sign
        self._cache, self._name = cache, name
        self._loaded: Loaded | None = None

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Scores, higher is better, shape (n,).

        Raises:
            ArithmeticError: if one is not finite, or above LARGEST; names the row, counted from 0.
        """
        rows = [as_text_row(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        return self._sign * self._cache.scores(self._scorer_id, rows, self._ask, name=self._name).float()

    def release(self) -> None:
        """Drops the network."""
        if self._loaded is not None:
            self._loaded = None
            free_memory()

    def _ask(self, rows: list[Encoded]) -> Tensor:
        if self._loaded is None:
            say(f"loads the reward of {self._name}")
            self._loaded = self._load()
        reader, scorer = self._loaded
        before = reader.cut
        scores = scorer(reader.read_all([texts_of(row) for row in rows]))
        if reader.cut > before:
            say(f"reward of {self._name}: {reader.cut - before} texts cut at its max_length={reader.max_length}")
        wrong = (~(scores.abs() <= LARGEST)).nonzero()  # NaN is in no range
        if len(wrong):
            row = int(wrong[0])
            raise ArithmeticError(f"reward of {self._name}: the score of row {row} is {scores[row].item()}")
        return scores


def in_batches(
    rows: Sequence[Tokens],
    forward: Callable[[dict[str, Tensor], Tensor], Tensor],
    *,
    pad: Callable[[set[int]], int],
    batch_size: int,
    device: torch.device,
    label: str,
) -> Tensor:
    """Scores of rows, batch by batch of like length, longest first, so that memory runs out at once or never.

    Args:
        rows: the texts.
        forward: scores of one batch, from the model's inputs and the index of each row's last token.
        pad: the padding token of a batch, from the last tokens of its rows.
        batch_size: rows of one forward.
        device: where the model is.
        label: what the progress bar says.
    """
    scores = torch.empty(len(rows))
    order = sorted(range(len(rows)), key=lambda index: -len(rows[index].ids))
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    with torch.inference_mode():
        for indices in track(batches, label=label):
            batch = [rows[index] for index in indices]
            inputs, last_B = _padded(batch, pad({row.ids[-1] for row in batch}), device)
            scores[indices] = forward(inputs, last_B).float().cpu()
    return scores


def absent_token(taken: set[int]) -> int:
    """A token that ends none of the rows: padded with it, their last real tokens can be told."""
    return next(token for token in itertools.count() if token not in taken)


def _padded(rows: Sequence[Tokens], pad: int, device: torch.device) -> tuple[dict[str, Tensor], Tensor]:
    """Rows padded at the end, (B, T), and the index of each one's last token, (B,)."""
    width = max(len(row.ids) for row in rows)

    def stacked(columns: list[list[int]], filler: int) -> Tensor:
        return torch.tensor([column + [filler] * (width - len(column)) for column in columns], device=device)

    inputs: dict[str, Any] = {
        "input_ids": stacked([row.ids for row in rows], pad),
        "attention_mask": stacked([[1] * len(row.ids) for row in rows], 0),
    }
    if rows[0].types is not None:
        inputs["token_type_ids"] = stacked([list(row.types or ()) for row in rows], 0)
    return inputs, torch.tensor([len(row.ids) - 1 for row in rows], device=device)
