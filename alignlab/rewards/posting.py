"""Batches to a scoring endpoint and back: tried again where that can help; what cannot be checked is not believed."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from alignlab.config.schema import HttpConfig
from alignlab.data.records import Prompt, prompt_as_json
from alignlab.io.client import Call, NoAnswer, Reply, Server, Transient
from alignlab.io.endpoint import Endpoint, endpoint_at
from alignlab.io.http import Response
from alignlab.io.openai_protocol import redirected, retry_after
from alignlab.rewards.base import LARGEST, is_score

Row = tuple[Prompt, str]
MOST_BYTES = 16 * 2**20
"""Of one answer; the rest is not read."""


class EndpointError(RuntimeError):
    """The endpoint did not answer, or not what was asked."""


def endpoint_of(config: HttpConfig, *, key: str = "reward") -> Endpoint:
    """Where the rewards come from.

    Args:
        config: address and limits.
        key: what the settings stand under, for errors.
    """
    return endpoint_at(config.url, config, section=key, url_key="url", most_bytes=MOST_BYTES)


def post_all(
    config: HttpConfig, rows: Sequence[Row], *, advance: Callable[[], None], key: str = "reward"
) -> list[float]:
    """Scores of rows, asked for in batches until they come or the deadline passes.

    Args:
        config: address, limits and batch size.
        rows: prompts and responses.
        advance: told of each batch that is scored.
        key: what the settings stand under, for errors.

    Raises:
        EndpointError: if a batch stays without an answer, or an answer is not one finite number a response; names the
            rows, never their texts.
    """
    scores: dict[int, list[float]] = {}
    starts = {str(start): start for start in range(0, len(rows), config.batch_size)}

    def read(call: Call, response: Response) -> list[float]:
        return _read(response, rows=len(call.body["responses"]), start=starts[call.id])

    def on_reply(reply: Reply) -> None:
        scores[starts[reply.call.id]] = reply.body
        advance()

    calls = (Call(name, "", _body(rows[start : start + config.batch_size])) for name, start in starts.items())
    try:
        Server(endpoint_of(config, key=key), read=read).ask(calls, on_reply)
    except NoAnswer as error:
        first = next(start for start in starts.values() if start not in scores)
        last = min(first + config.batch_size, len(rows)) - 1
        raise EndpointError(f"rows {first}..{last}: {error}") from None
    return [score for start in sorted(scores) for score in scores[start]]


def _body(rows: Sequence[Row]) -> dict[str, Any]:
    return {"prompts": [prompt_as_json(prompt) for prompt, _ in rows], "responses": [response for _, response in rows]}


def _read(response: Response, *, rows: int, start: int) -> list[float]:
    """The scores of an answer.

    Raises:
        Transient: if another try may do better.
        EndpointError: if not.
    """
    status, what = response.status, f"rows {start}..{start + rows - 1}"
    if status == 200:
        return scores_of(response.content, rows, start)
    if status == 429 or status >= 500:
        raise Transient(f"status {status}", retry_after=retry_after(response.headers), overload=True)
    if 300 <= status < 400:
        raise EndpointError(f"{what}: status {status}, {redirected(response).why}")
    raise EndpointError(f"{what}: status {status}")


def scores_of(content: bytes, count: int, start: int) -> list[float]:
    """The scores of an answer. What else it says is not shown: it may repeat the texts.

    Args:
        content: the answer's body.
        count: responses that were sent.
        start: number of the first one, for messages.

    Raises:
        EndpointError: unless there is one finite number a response; names the row.
    """
    try:
        answer = json.loads(content)
    except (ValueError, RecursionError):
        raise EndpointError(f"the answer for row {start} and on is not JSON") from None
    scores = answer.get("scores") if isinstance(answer, dict) else None
    if not isinstance(scores, list):
        raise EndpointError(f'the answer for row {start} and on must be {{"scores": [...]}}')
    if len(scores) != count:
        raise EndpointError(f"{len(scores)} scores for {count} responses, rows {start}..{start + count - 1}")
    for index, value in enumerate(scores):
        if not is_score(value):
            what = str(value)[:20] if type(value) in (int, float) else type(value).__name__
            raise EndpointError(
                f"the score of row {start + index} is {what}, must be a finite number of at most {LARGEST:g} in size"
            )
    return [float(value) for value in scores]
