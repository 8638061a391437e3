"""An HTTP endpoint as a reward: batches out, one number a response back, and nothing but that is believed.

    POST {"prompts": [...], "responses": [...]}  ->  {"scores": [...]}

A prompt is text, or a list of {"role", "content"} where it is a conversation.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from alignlab.config.schema import HttpConfig
from alignlab.data.records import Prompt
from alignlab.engine.cache.scores import ScoreCache
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.rewards.base import TextReward, as_text_row, texts_of
from alignlab.rewards.posting import post_all
from alignlab.runs.progress import progress


class EndpointReward(TextReward):
    """Scores from an endpoint, higher is better.

    With `version` its scores are kept under address and version for all runs; without, for this process only, because
    no one knows what the address serves tomorrow.

    Args:
        config: address, limits, sign.
        cache: keeps the scores of a version.
        encoder: the base model's; reads tokens back into texts.
        name: what the counts of the cache call it.
        key: what its settings stand under, for errors.
    """

    def __init__(
        self, config: HttpConfig, *, cache: ScoreCache, encoder: PromptEncoder, name: str, key: str = "reward"
    ) -> None:
        self._scorer_id = f"http:{config.url}:{config.version}"
        super().__init__(f"{self._scorer_id}{':negated' if config.negate else ''}", encoder)
        self._config, self._cache, self._name, self._key = config, cache, name, key
        self._remembered: dict[bytes, float] = {}

    def score(self, prompts: Sequence[Prompt], responses: Sequence[str]) -> Tensor:
        """Scores, shape (n,).

        Raises:
            EndpointError: if a batch stays without an answer, or an answer is not one finite number a response.
        """
        rows = [as_text_row(prompt, response) for prompt, response in zip(prompts, responses, strict=True)]
        if self._config.version is None:
            scores = self._for_now(rows)
        else:
            scores = self._cache.scores(self._scorer_id, rows, self._ask, name=self._name).float()
        return -scores if self._config.negate else scores

    def _for_now(self, rows: Sequence[Encoded]) -> Tensor:
        keys = [bytes(row.prompt_ids + row.response_ids) for row in rows]
        first = {key: row for key, row in zip(keys, rows, strict=True) if key not in self._remembered}
        if first:
            self._remembered.update(zip(first, self._ask(list(first.values())).tolist(), strict=True))
        return torch.tensor([self._remembered[key] for key in keys])

    def _ask(self, given: list[Encoded]) -> Tensor:
        """Scores of rows, a few requests in flight; the first that is refused stops the others."""
        rows = [texts_of(row) for row in given]
        with progress(f"asks for {self._name}", -(-len(rows) // self._config.batch_size)) as bar:
            scores = post_all(self._config, rows, advance=bar.advance, key=self._key)
        return torch.tensor(scores, dtype=torch.float32)
