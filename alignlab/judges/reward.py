"""A judge in the form of a reward: its share of yes, NaN where it gave no verdict."""

from collections import Counter
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from alignlab.data.records import Prompt, prompt_text
from alignlab.io.hashes import text_id
from alignlab.judges.base import Judge, JudgeItem
from alignlab.judges.scores import judge_scores
from alignlab.models.prompts import PromptEncoder
from alignlab.rewards.base import TextReward


class JudgeReward(TextReward):
    """Scores whole responses by a judge, which keeps its answers for other runs.

    Args:
        load: gives the judge, ready to be asked.
        encoder: the base model's.
    """

    def __init__(self, load: Callable[[], Judge], encoder: PromptEncoder) -> None:
        self._load = load
        self._judge: Judge | None = load()
        self._unscored: Counter[str] = Counter()
        super().__init__(f"judge {self._judge.id} {','.join(self._judge.wordings)}", encoder)

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Share of yes of every response, float32 (n,), within 0 and 1; NaN is unscored."""
        texts = [prompt_text(prompt) for prompt in prompts]
        names = [text_id(text, response) for text, response in zip(texts, responses, strict=True)]
        items = {
            name: JudgeItem(name, text, "", response)
            for name, text, response in zip(names, texts, responses, strict=True)
        }
        self._judge = judge = self._judge or self._load()
        reasons: dict[str, str] = {}
        scores = dict(zip(items, judge_scores(judge, list(items.values()), reasons).tolist(), strict=True))
        self._unscored = Counter(reasons[name] for name in names if name in reasons)
        return torch.tensor([scores[name] for name in names], dtype=torch.float32)

    def unscored(self) -> dict[str, int]:
        """Reason -> responses of the last call that the judge gave no verdict of."""
        return dict(sorted(self._unscored.items()))

    def release(self) -> None:
        """Drop the judge's model; the next call loads it again."""
        self._judge = None
