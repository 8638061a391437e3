"""Where a server is, and the limits under which it is asked."""

from dataclasses import dataclass
from typing import Protocol
from urllib.parse import urlsplit

from alignlab.errors import require_key

MOST_BYTES = 4 * 2**20
"""Longest answer that is read, in bytes after decompression."""


class Limits(Protocol):
    """The settings of whatever asks a server, as `Endpoint` explains them."""

    api_key_env: str | None
    workers: int
    timeout_s: float
    deadline_s: float
    backoff_s: float


@dataclass(frozen=True)
class Endpoint:
    """Where a server is and how to treat it."""

    section: str
    """The config group that errors name, e.g. `judge`."""
    base_url: str
    api_key_env: str | None
    """Name of the environment variable that holds the key; read when calls are made and kept nowhere."""
    workers: int
    """Most calls in flight."""
    timeout_s: float
    """Time of a call's first try, in seconds; later ones get longer where the server is seen to need it."""
    deadline_s: float
    """Longest time from a call's first try to its answer, in seconds, waits included."""
    backoff_s: float
    """Wait before the second try, in seconds; doubles with each further one."""
    url_key: str = "base_url"
    """The key in the section that holds the address."""
    most_bytes: int = MOST_BYTES

    def key(self) -> str | None:
        """The key itself.

        Raises:
            ConfigError: if the environment variable is not set.
        """
        return require_key(self.section, self.api_key_env)

    def url(self, path: str) -> str:
        """The address of a path below the endpoint."""
        return f"{self.base_url.rstrip('/')}/{path}" if path else self.base_url

    @property
    def shown(self) -> str:
        """`section.key=scheme://host:port`, for messages: what else an address holds belongs in no log."""
        parts = urlsplit(self.base_url)
        port = f":{parts.port}" if parts.port else ""
        host = f"[{parts.hostname}]" if ":" in str(parts.hostname) else parts.hostname
        return f"{self.section}.{self.url_key}={parts.scheme}://{host}{port}"


def endpoint_at(
    base_url: str, limits: Limits, *, section: str, url_key: str = "base_url", most_bytes: int = MOST_BYTES
) -> Endpoint:
    """The endpoint that a group of settings means.

    Args:
        base_url: its address.
        limits: the settings.
        section: the group, for errors.
        url_key: the key in it that holds the address.
        most_bytes: longest answer that is read.
    """
    return Endpoint(
        section=section,
        base_url=base_url,
        api_key_env=limits.api_key_env,
        workers=limits.workers,
        timeout_s=limits.timeout_s,
        deadline_s=limits.deadline_s,
        backoff_s=limits.backoff_s,
        url_key=url_key,
        most_bytes=most_bytes,
    )
