"""HTTP for judges, generators and rewards: bounded in time and bytes, and never sent on to another host."""

import asyncio
import functools
import logging
import socket
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from alignlab.config.schema.judge import serves_metadata
from alignlab.errors import ConfigError
from alignlab.io.endpoint import Endpoint

_GZIP_OR_ZLIB = 32 + zlib.MAX_WBITS
_PACKED, _PLAIN = ("gzip", "x-gzip", "deflate"), ("", "identity")


class Unreadable(Exception):
    """An answer that is too long, packed in an unknown way, or damaged."""


@dataclass(frozen=True)
class Response:
    """One answer."""

    status: int
    headers: Mapping[str, str]
    content: bytes
    """The body, decompressed."""


def http_client(endpoint: Endpoint) -> Any:
    """A client for one endpoint; close it with `aclose`.

    It follows no redirect, which would carry key and texts to an address that a stranger names, and opens a connection
    for each call, so that bytes beyond an answer are never read as the next call's.

    Raises:
        ConfigError: if the variable that should hold the key is not set, or the host is one at which a cloud hands out
            credentials.
    """
    import httpx2

    _refuse_metadata(endpoint)
    for name in ("httpx2", "httpcore2"):  # a line for each call would fill the job's log
        logging.getLogger(name).setLevel(logging.WARNING)
    key = endpoint.key()
    authorization = {"Authorization": f"Bearer {key}"} if key else {}
    return httpx2.AsyncClient(
        headers={"Accept-Encoding": "gzip, deflate", **authorization},
        follow_redirects=False,
        limits=httpx2.Limits(max_connections=None, max_keepalive_connections=0),
        verify=_certificates(),
        timeout=None,  # `post` bounds the whole try, not each read
    )


def _refuse_metadata(endpoint: Endpoint) -> None:
    host = str(urlsplit(endpoint.base_url).hostname)
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        addresses = set()  # a proxy may know the host
    if any(serves_metadata(address.partition("%")[0]) for address in addresses):
        raise ConfigError(f"{endpoint.shown}: is a link-local or metadata address, which is refused")


async def post(client: Any, url: str, body: dict[str, Any], *, seconds: float, most_bytes: int) -> Response:
    """Send one request.

    Args:
        client: from `http_client`.
        url: the address.
        body: sent as JSON.
        seconds: bound on the whole try, from connecting to the last byte.
        most_bytes: bound on the answer, after decompression.

    Raises:
        TimeoutError: after `seconds`.
        Unreadable: if the answer is too long or cannot be decompressed.
        httpx2.HTTPError, OSError: if the connection fails.
    """
    async with asyncio.timeout(seconds), client.stream("POST", url, json=body) as response:
        content = await _content(response, most_bytes)
        return Response(response.status_code, response.headers, content)


async def _content(response: Any, most_bytes: int) -> bytes:
    packing = response.headers.get("content-encoding", "").strip().lower()
    if packing not in (*_PACKED, *_PLAIN):
        raise Unreadable("an unknown compression")
    unpack = zlib.decompressobj(_GZIP_OR_ZLIB) if packing in _PACKED else None
    content = bytearray()
    async for chunk in response.aiter_raw():
        try:
            content += chunk if unpack is None else unpack.decompress(chunk, most_bytes + 1 - len(content))
        except zlib.error:
            raise Unreadable("damaged compression") from None
        if len(content) > most_bytes:
            raise Unreadable(f"more than {most_bytes / 2**20:g} MiB")
    if unpack is not None and not unpack.eof:
        raise Unreadable("damaged compression")
    return bytes(content)


@functools.cache
def _certificates() -> Any:
    """Read once: it takes longer than a call to a server nearby."""
    import httpx2

    return httpx2.create_ssl_context()
