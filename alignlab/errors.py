"""The one error that a user sees: a line or two, no traceback, exit code 2."""

import difflib
import os
import re
import signal
from collections.abc import Iterable

from hydra.errors import CompactHydraException

MOST_CHOICES = 20
"""Longer lists of names are shown in part."""
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
"""Ctrl-C; another signal n that ends a job gives 128 + n."""


class ConfigError(CompactHydraException):  # type: ignore[misc]  # hydra's exceptions are untyped
    """Bad input: `key=value: what must hold`. Hydra prints it alone. A key typed by mistake is masked."""

    def __init__(self, text: str) -> None:
        super().__init__(masked(text))


class JobFailed(CompactHydraException):  # type: ignore[misc]
    """A job ended with an error that is already in its log and its result.json; only a line is left to print."""


class OnlyPlanned(CompactHydraException):  # type: ignore[misc]
    """A job was asked to say what it would do, and has said it: nothing failed, and nothing is finished."""


class Terminated(KeyboardInterrupt):
    """A signal that ends a job as Ctrl-C does: recorded and resumable; the exit code is 128 + its number."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(f"signal {number}")
        self.number = number


_SECRET = re.compile(r"\b(?:sk|pk|rk|gsk|xai|hf|nvapi|Bearer)[-_ ][\w-]{16,}|\bAIza[\w-]{30,}")


def masked(text: str) -> str:
    """The text without what looks like a key to some service."""
    return _SECRET.sub("***", text)


def nearest(name: str, choices: Iterable[str]) -> str:
    """Names the valid choices, the nearest first: `did you mean modpo? choose one of dpo, modpo`; of many, a few."""
    ordered = sorted(choices)
    close = difflib.get_close_matches(name, ordered, n=1, cutoff=0.5)
    shown = ordered
    if len(ordered) > MOST_CHOICES:
        shown = sorted(difflib.get_close_matches(name, ordered, n=MOST_CHOICES // 2, cutoff=0))
    more = f" or {len(ordered) - len(shown)} others" if len(shown) < len(ordered) else ""
    listed = f"choose one of {', '.join(shown)}{more}" if ordered else "there is none to choose from"
    return f"did you mean {close[0]}? {listed}" if close else listed


def require(condition: bool, key: str, value: object, rule: str) -> None:
    """Raises ConfigError `key=value: rule` unless the condition holds."""
    if not condition:
        raise ConfigError(f"{key}={value}: {rule}")


def require_one_of(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError with the nearest choice unless the value is one of them."""
    require(value in choices, key, value, nearest(value, choices))


def require_name(key: str, value: str) -> None:
    """A name becomes a folder's name."""
    good = bool(re.fullmatch(r"\w[\w.+-]*", value))
    require(good, key, value, "must be letters, digits, '_', '.', '+' or '-', because it names a folder")


def require_key(section: str, variable: str | None) -> str | None:
    """The key in an environment variable; None if there is no variable to look in.

    Raises:
        ConfigError: if the variable is not set.
    """
    if variable is None:
        return None
    key = os.environ.get(variable, "").strip()
    require(bool(key), f"{section}.api_key_env", variable, "no such environment variable is set; put the key there")
    return key


def require_seed(key: str, value: int) -> None:
    """What torch and numpy both take as a seed."""
    require(0 <= value < 2**32, key, value, "must be in [0, 2**32)")
