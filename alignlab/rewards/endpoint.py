"""An HTTP endpoint as a reward: batches out, one number a response back, and nothing but that is believed.

    POST {"prompts": [...], "responses": [...]}  ->  {"scores": [...]}

A prompt is text, or a list of {"role", "content"} where it is a conversation.
"""

import socket
import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from urllib.parse import urlsplit

import httpx2 as httpx
import torch
from torch import Tensor

from alignlab.config.schema import HttpConfig
from alignlab.config.schema.judge import serves_metadata
from alignlab.data.records import Prompt
from alignlab.engine.cache.scores import ScoreCache
from alignlab.errors import ConfigError, require_key
from alignlab.io.endpoint import one_call_a_connection
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.rewards.base import TextReward, as_text_row, texts_of
from alignlab.rewards.posting import post
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
    """

    def __init__(self, config: HttpConfig, *, cache: ScoreCache, encoder: PromptEncoder, name: str) -> None:
        self._scorer_id = f"http:{config.url}:{config.version}"
        super().__init__(f"{self._scorer_id}{':negated' if config.negate else ''}", encoder)
        self._config, self._cache, self._name = config, cache, name
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
        """Scores of rows, a few requests in flight; the first that fails stops the others."""
        rows = [texts_of(row) for row in given]
        size, stop = self._config.batch_size, threading.Event()
        starts = range(0, len(rows), size)
        with (
            client_of(self._config) as client,
            ThreadPoolExecutor(self._config.workers) as pool,
            progress(f"asks for {self._name}", len(starts)) as bar,
        ):
            asked = [pool.submit(post, client, self._config, rows[at : at + size], at, stop) for at in starts]
            scores: list[float] = []
            try:
                for answer in asked:
                    scores += answer.result()
                    bar.advance()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return torch.tensor(scores, dtype=torch.float32)


def client_of(config: HttpConfig) -> httpx.Client:
    """A client that goes to the configured host only; the key is read when it is needed, and written nowhere.

    Raises:
        ConfigError: if the host is one at which a cloud hands out credentials, or the key's variable is not set.
    """
    host = str(urlsplit(config.url).hostname)
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        addresses = set()  # a proxy may know the host
    if any(serves_metadata(address.partition("%")[0]) for address in addresses):
        raise ConfigError(f"reward.url: {host} is a link-local or metadata address, which is refused")
    key = require_key("reward", config.api_key_env)
    headers = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx.Client(headers=headers, follow_redirects=False, limits=one_call_a_connection())
