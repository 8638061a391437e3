"""The one error that a user sees: a line or two, no traceback, exit code 2."""

import difflib
import os
import re
import signal
import unicodedata
from collections.abc import Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

from hydra.errors import CompactHydraException

MOST_CHOICES = 20
"""Longer lists of names are shown in part."""
MOST_LINES = 5
"""Of one error."""
LONGEST_LINE = 800
LONGEST_NAME = 100
"""Of what becomes part of a folder's name; file systems end at 255 bytes."""
EXIT_FAILED = 1
EXIT_BAD_INPUT = 2
EXIT_INTERRUPTED = 130
"""Ctrl-C; another signal n that ends a job gives 128 + n."""


class ConfigError(CompactHydraException):  # type: ignore[misc]  # hydra's exceptions are untyped
    """Bad input: `key=value: what must hold`. Hydra prints it alone; safe to print whatever the value was."""

    def __init__(self, text: str, *, most_lines: int = MOST_LINES) -> None:
        super().__init__("\n".join(_cut(line) for line in printable(masked(text)).splitlines()[:most_lines]))


class JobFailed(CompactHydraException):  # type: ignore[misc]
    """A job ended with an error that is already in its log and its result.json; only a line is left to print."""


class OnlyPlanned(CompactHydraException):  # type: ignore[misc]
    """A job was asked to say what it would do, and has said it: nothing failed, and nothing is finished."""


class Terminated(KeyboardInterrupt):
    """A signal that ends a job as Ctrl-C does: recorded and resumable; the exit code is 128 + its number."""

    def __init__(self, number: int = signal.SIGTERM) -> None:
        super().__init__(f"signal {number}")
        self.number = number


_KEY_FORMS = re.compile(
    r"\b(?:sk|pk|rk|gsk|xai|hf|nvapi|Bearer)[-_ ][\w-]{16,}"
    r"|\bAIza[\w-]{30,}"  # Google
    r"|\b(?:AKIA|ASIA)[0-9A-Z]{16}\b"  # AWS
    r"|\bgh[pousr]_\w{20,}|\bgithub_pat_\w{20,}|\bglpat-[\w-]{16,}"
    r"|\bxox[abeoprs]-[\w-]{10,}"  # Slack
    r"|\beyJ[\w-]{8,}\.[\w-]{8,}(?:\.[\w-]*)?"  # JSON web tokens
    r"|(?<!snapshots/)(?<!revision=)\b[0-9a-f]{40}\b"  # wandb; a commit has this form too
    r"|(?<=://)[^/\s@]+:[^/\s@]+(?=@)"  # user and password of an address
)
_NAMES_A_SECRET = re.compile(r"(?i:KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)")
_IS_A_SECRET = re.compile(r"(?![/.~])\S{16,}")
"""Shorter values of such variables are settings, and a path is where a key lies."""


def masked(text: str) -> str:
    """The text without what looks like a key to some service, or is one in the environment."""
    for secret in _secrets():
        text = text.replace(secret, "***")
    return _KEY_FORMS.sub("***", text)


def without_secrets(value: Any) -> Any:
    """A configuration without keys, and its addresses without user, password and query."""
    if isinstance(value, dict):
        return {name: without_secrets(one) for name, one in value.items()}
    if isinstance(value, list | tuple):
        return [without_secrets(one) for one in value]
    if not isinstance(value, str):
        return value
    if "://" in value:
        address = urlsplit(value)
        value = address._replace(netloc=address.netloc.rpartition("@")[2], query="", fragment="").geturl()
    return masked(value)


def holds_key(text: str) -> bool:
    """Whether a text holds what looks like a key to some service, or is one in the environment."""
    return masked(text) != text


def _secrets() -> Iterator[str]:
    """Values of the environment's variables that are named as keys are."""
    for name, value in os.environ.items():
        if _NAMES_A_SECRET.fullmatch(name.rpartition("_")[2]) and _IS_A_SECRET.fullmatch(value.strip()):
            yield value.strip()


def printable(text: str) -> str:
    """The text with control and direction characters escaped, line ends apart: a terminal obeys them."""
    return "".join(char if char == "\n" or _is_harmless(char) else repr(char)[1:-1] for char in text)


def _is_harmless(char: str) -> bool:
    return (char.isascii() and char.isprintable()) or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Zl", "Zp")


def _cut(line: str) -> str:
    """A line without its middle where it is longer than a screen or two: the key is in front, the rule at the end."""
    if len(line) <= LONGEST_LINE:
        return line
    shown = LONGEST_LINE // 2
    return f"{line[:shown]}[... {len(line) - 2 * shown} characters ...]{line[-shown:]}"


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
    """Raises ConfigError `key=value: rule` unless the condition holds.

    Args:
        condition: what must hold.
        key: of the setting.
        value: as typed.
        rule: what must hold, in words.
    """
    if not condition:
        raise ConfigError(f"{key}={value}: {rule}")


def require_one_of(key: str, value: str, choices: Iterable[str]) -> None:
    """Raises ConfigError with the nearest choice unless the value is one of them.

    Args:
        key: of the setting.
        value: as typed.
        choices: that are allowed.
    """
    require(value in choices, key, value, nearest(value, choices))


def require_name(key: str, value: str) -> None:
    """A name becomes a folder's name."""
    good = bool(re.fullmatch(r"\w[\w.+-]*", value))
    require(good, key, value, "must be letters, digits, '_', '.', '+' or '-', because it names a folder")
    require(len(value) <= LONGEST_NAME, key, value, f"must be at most {LONGEST_NAME} characters, as it names a folder")


def require_fields(key: str, template: str | None, fields: Iterable[str]) -> None:
    """Refuse a {field} in a template that nobody fills: it would stand in every prompt as it is typed.

    Args:
        key: of the template.
        template: None for a chat template.
        fields: names that are filled.
    """
    known = sorted(fields)
    for name in re.findall(r"\{([A-Za-z_]\w*)\}", template or ""):
        filled = " and ".join("{" + field + "}" for field in known)
        require(name in known, key, repr(template), f"{{{name}}} is filled by nothing; {filled} is")


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
