"""Where a server is, and how patiently it is treated."""

from dataclasses import dataclass
from typing import Any

from alignlab.errors import require_key


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
    """Longest wall-clock time of one try, in seconds."""
    deadline_s: float
    """Longest time from a call's first try to its answer, in seconds, waits included."""
    backoff_s: float
    """Wait before the second try, in seconds; doubles with each further one."""

    def key(self) -> str | None:
        """The key itself.

        Raises:
            ConfigError: if the environment variable is not set.
        """
        return require_key(self.section, self.api_key_env)


def one_call_a_connection() -> Any:
    """Limits for an HTTP client: what a server sends beyond its answer is never read as the next call's answer."""
    import httpx2

    return httpx2.Limits(max_connections=None, max_keepalive_connections=0)
