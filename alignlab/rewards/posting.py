"""One batch to a scoring endpoint and back: tries again where that can help, believes nothing that it cannot check."""

import itertools
import json
import random
import threading
import time
from collections.abc import Sequence
from typing import Any
from urllib.parse import urlsplit

import httpx2 as httpx
import numpy as np

from alignlab.config.schema import HttpConfig
from alignlab.data.records import Prompt, prompt_as_json
from alignlab.io.http_faults import retry_after

Row = tuple[Prompt, str]
MOST_BYTES = 64 * 2**20
"""Of one answer; the rest is not read."""
GREATEST = float(np.finfo(np.float32).max)
"""A score above it is none: scores are float32."""
LONGEST_WAIT = 64
"""The longest wait between tries, in first waits."""


class EndpointError(RuntimeError):
    """The endpoint did not answer, or not what was asked."""


def post(
    client: httpx.Client, config: HttpConfig, rows: Sequence[Row], start: int, stop: threading.Event
) -> list[float]:
    """Scores of one batch, asked for until they come, the deadline passes or `stop` is set.

    Args:
        client: knows the key.
        config: address and limits.
        rows: prompts and responses.
        start: the number of the first row, for messages.
        stop: ends the waiting, when another batch has failed.

    Raises:
        EndpointError: naming the rows, never their texts.
    """
    body = {"prompts": [prompt_as_json(prompt) for prompt, _ in rows], "responses": [response for _, response in rows]}
    end = time.monotonic() + config.deadline_s
    what = f"{_host(config)}: rows {start}..{start + len(rows) - 1}"
    for attempt in itertools.count(1):
        trouble, wait, content = _try(client, config, body, end)
        if content is not None:
            return scores_of(content, len(rows), start)
        if wait is None:
            raise EndpointError(f"{what}: {trouble}")
        grown = config.backoff_s * min(LONGEST_WAIT, 2 ** (attempt - 1)) * random.uniform(0.75, 1.25)
        pause = wait or grown
        if pause >= end - time.monotonic() or stop.wait(pause):
            break
    raise EndpointError(f"{what}: {trouble}, try {attempt} within deadline_s={config.deadline_s:g}")


def _try(
    client: httpx.Client, config: HttpConfig, body: dict[str, Any], end: float
) -> tuple[str, float | None, bytes | None]:
    """(trouble, seconds to wait or None where another try is no use, content where there is no trouble)."""
    try:
        status, headers, content = _send(client, config.url, body, min(end, time.monotonic() + config.timeout_s))
    except (httpx.HTTPError, TimeoutError) as error:
        return type(error).__name__, 0.0, None
    if status == httpx.codes.OK:
        return "", None, content
    if status == httpx.codes.TOO_MANY_REQUESTS or httpx.codes.is_server_error(status):
        return f"status {status}", retry_after(headers) or 0.0, None
    return f"status {status}{', redirects are refused' if httpx.codes.is_redirect(status) else ''}", None, None


def _send(client: httpx.Client, url: str, body: dict[str, Any], end: float) -> tuple[int, httpx.Headers, bytes]:
    """Status, headers and content of one try, which ends at the deadline also where the server drips.

    Raises:
        TimeoutError: at the deadline.
        EndpointError: if the answer is longer than MOST_BYTES.
    """
    left = end - time.monotonic()
    if left <= 0:
        raise TimeoutError
    with client.stream("POST", url, json=body, timeout=left) as response:
        content = bytearray()
        for chunk in response.iter_bytes():
            content += chunk
            if time.monotonic() > end:
                raise TimeoutError
            if len(content) > MOST_BYTES:
                raise EndpointError(f"the answer is longer than {MOST_BYTES // 2**20} MiB")
        return response.status_code, response.headers, bytes(content)


def scores_of(content: bytes, count: int, start: int) -> list[float]:
    """The scores of an answer. What else it says is not shown: it may repeat the texts.

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
    for place, value in enumerate(scores):
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if not number or not -GREATEST <= value <= GREATEST:  # NaN is in no range
            what = str(value)[:20] if number else type(value).__name__
            raise EndpointError(f"the score of row {start + place} is {what}, must be a finite number")
    return [float(value) for value in scores]


def _host(config: HttpConfig) -> str:
    """Where it was sent, without path and query: these may hold what nobody should read in a log."""
    parts = urlsplit(config.url)
    return f"{parts.scheme}://{parts.hostname}{f':{parts.port}' if parts.port else ''}"
