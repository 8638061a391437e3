"""The secret by which the nodes of a run know each other: a file in the run root, which they share."""

import hashlib
import hmac
import os
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

from alignlab.errors import ConfigError

NUM_DIGITS = 64
"""Of the secret, hexadecimal."""
WRITING_SECONDS = 10.0
"""For which another node may be writing it."""


@dataclass(frozen=True)
class Secret:
    """What only the user's own nodes can read."""

    path: Path
    value: bytes

    def proof(self, *parts: object) -> str:
        """Shows to who knows the secret that the sender does, and says these parts."""
        return hmac.new(self.value, repr(parts).encode(), hashlib.sha256).hexdigest()

    def is_proof(self, given: object, *parts: object) -> bool:
        """Whether this was made with the secret, of these parts.

        Args:
            given: what the other end sent.
            parts: what it says.
        """
        return isinstance(given, str) and given.isascii() and hmac.compare_digest(given, self.proof(*parts))


def secret_in(runs: Path) -> Secret:
    """The user's secret in a run root; the first node that comes makes it, for good.

    Args:
        runs: paths.runs.

    Raises:
        ConfigError: if it cannot be read or written.
    """
    path = runs / f".nodes.{os.getuid()}"
    try:
        runs.mkdir(parents=True, exist_ok=True)
        try:
            with open(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w") as stream:
                stream.write(secrets.token_hex(NUM_DIGITS // 2))
        except FileExistsError:
            pass
        deadline = time.monotonic() + WRITING_SECONDS
        while len(value := path.read_bytes()) != NUM_DIGITS:
            if time.monotonic() >= deadline:
                raise ConfigError(f"{path}: is not whole; remove it, and start the command on every node again")
            time.sleep(0.1)
    except OSError as error:
        raise ConfigError(f"{path}: {error.strerror}; nodes know each other by this file of the run root") from None
    return Secret(path, value)
