"""What an OpenAI-compatible server's answer means: a JSON object, try again, this call is refused, or stop the run."""

import datetime
import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from typing import Any
from urllib.parse import urlsplit

from alignlab.errors import ConfigError, masked
from alignlab.io.client import Call, Misfit, Refused, Server, Transient
from alignlab.io.endpoint import Endpoint
from alignlab.io.http import Response
from alignlab.io.text import printable

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which the same call may work."""
OVERLOADED = (408, 429)
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance")
WRONG_KEY = ("invalid_api_key", "account_deactivated", "authentication_error")
_RESUME = "what is known is kept; rerun the same command to resume"
MOST_SAID = 200
"""Characters of a server's own words in an error."""
KEY_PART = 6
"""So many characters of a key, one after the other whatever stands between them, are masked in a server's words."""


def openai_server(
    endpoint: Endpoint, *, check: Callable[[dict[str, Any]], str | None], keep_unanswered: bool = False
) -> Server:
    """A client of an OpenAI-compatible server.

    Args:
        endpoint: where it is.
        check: what is wrong with the shape of an answer's JSON object, or None; a wrong shape is asked again.
        keep_unanswered: reply `no_answer` to a call that ran out of time; else raise NoAnswer when the others are done.
    """

    def read(call: Call, response: Response) -> dict[str, Any]:
        """The body of a good answer; raises what `fault_of` says of another."""
        if not 200 <= response.status < 300:
            raise fault_of(response, endpoint, str(call.body.get("model")))
        body = body_of(response, endpoint)
        wrong = check(body)
        if wrong:
            raise Misfit(f"wrong shape: {wrong}", f"that is no answer to {call.path}; is this the address of the API?")
        return body

    return Server(endpoint, read=read, keep_unanswered=keep_unanswered)


def body_of(response: Response, endpoint: Endpoint) -> dict[str, Any]:
    """The JSON object of an answer with status 2xx.

    Raises:
        Transient: if there is none, as with a login page, a proxy's notice, or a body that was cut.
        ConfigError: if the object says that key or money are wrong.
    """
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        raise _not_json(response) from None
    if not isinstance(body, dict):
        raise Transient("wrong shape: no JSON object")
    error = _error(body)
    if error:
        _stop_if_hopeless(error, endpoint, response.status)
        raise Transient("error with status 200")
    return body


def _not_json(response: Response) -> Transient:
    kind = response.headers.get("content-type", "").lower()
    if "event-stream" in kind or response.content.startswith(b"data:"):
        return Misfit("an event stream", "it streams, though the call does not ask for a stream")
    if "html" in kind or response.content.lstrip()[:1] == b"<":
        return Misfit("a web page", "a login, or a proxy's notice; is this the address of the API?")
    return Transient("not JSON")


def fault_of(response: Response, endpoint: Endpoint, model: str) -> Exception:
    """What an answer with another status than 2xx means.

    Args:
        response: of the server.
        endpoint: that was asked.
        model: that was asked for.
    """
    status = response.status
    try:
        error = _error(json.loads(response.content))
    except (ValueError, RecursionError):
        error = {}
    if status in AGAIN or status >= 500:
        if status == 429:
            _stop_if_hopeless(error, endpoint, status)
        overload = status in OVERLOADED or status >= 500
        return Transient(str(status), retry_after=retry_after(response.headers), overload=overload)
    if status < 400:
        return redirected(response)
    if status == 402:
        return _no_money(endpoint, status)
    if status in (401, 403, 407):
        return _wrong_key(endpoint, status, error)
    if status in (404, 405, 410):
        what = f"{endpoint.shown}: knows no such path, or no model {model}"
        return ConfigError(f"{what} ({status}{_said(error, endpoint)}); most addresses end in /v1; {_RESUME}")
    kind = "content_filter" if "content_filter" in _codes(error) else f"refused_{status}"
    return Refused(kind, f"{status}{_said(error, endpoint)}")


def redirected(response: Response) -> Misfit:
    """A redirect, which is not followed."""
    try:
        host = urlsplit(response.headers.get("location", "")).hostname
    except ValueError:
        host = None
    to = f" to {printable(host)[:MOST_SAID]}" if host else ""
    return Misfit(f"redirect {response.status}", f"redirects{to} are not followed; give the address it leads to")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait by the headers Retry-After-Ms or Retry-After, which holds seconds or a date; None without."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            seconds = float(headers[name]) / unit
        except (KeyError, ValueError):
            continue
        return max(seconds, 0.0) if math.isfinite(seconds) else None
    try:
        date = email.utils.parsedate_to_datetime(headers.get("retry-after", ""))
        if date.tzinfo is None:
            date = date.replace(tzinfo=datetime.UTC)
        return max(date.timestamp() - time.time(), 0.0)
    except (ValueError, TypeError, OverflowError):
        return None


def _error(body: Any) -> dict[str, Any]:
    """The error object of a body: OpenAI's nested form, or the flat ones of other servers."""
    if not isinstance(body, dict):
        return {}
    error = body.get("error") or {}
    if isinstance(error, str):
        return {"message": error}
    if isinstance(error, dict) and error:
        return error
    return body if body.get("object") == "error" else {}


def _codes(error: dict[str, Any]) -> set[str]:
    return {str(error.get(name)) for name in ("code", "type")}


def _stop_if_hopeless(error: dict[str, Any], endpoint: Endpoint, status: int) -> None:
    if _codes(error) & set(NO_MONEY):
        raise _no_money(endpoint, status)
    if _codes(error) & set(WRONG_KEY):
        raise _wrong_key(endpoint, status, error)


def _no_money(endpoint: Endpoint, status: int) -> ConfigError:
    who = f"{endpoint.section}.api_key_env={endpoint.api_key_env or 'null'}"
    return ConfigError(f"{who}: the account behind this key has no quota left ({status}); {_RESUME}")


def _wrong_key(endpoint: Endpoint, status: int, error: dict[str, Any]) -> ConfigError:
    said, section = _said(error, endpoint), endpoint.section
    if endpoint.api_key_env is None:
        return ConfigError(f"{section}.api_key_env=null: {endpoint.shown} wants a key ({status}); {_RESUME}")
    who = f"{section}.api_key_env={endpoint.api_key_env}"
    return ConfigError(f"{who}: {endpoint.shown} refuses the key that it holds ({status}{said}); {_RESUME}")


def _said(error: dict[str, Any], endpoint: Endpoint) -> str:
    """The server's own words on one line, without keys and without control characters."""
    words = " ".join(str(error.get("message") or "").split())[: 10 * MOST_SAID]
    words = masked(re.sub(r"\S*\*\*\S*", "***", without_key(words, endpoint.key())))
    return f": {printable(words)[:MOST_SAID]}" if words else ""


def without_key(words: str, key: str | None) -> str:
    """Words in which no part of a key can be read, however it is spaced or split."""
    letters = [index for index, char in enumerate(words) if char.isalnum()]
    text = "".join(words[index] for index in letters).lower()
    secret = "".join(filter(str.isalnum, key or "")).lower()
    size = min(KEY_PART, len(secret))
    hidden: set[int] = set()
    for start in range(len(secret) - size + 1) if size else ():
        part, at = secret[start : start + size], -1
        while (at := text.find(part, at + 1)) >= 0:
            hidden.update(range(letters[at], letters[at + size - 1] + 1))
    shown = "".join("\0" if index in hidden else char for index, char in enumerate(words))
    return re.sub("\0+", "***", shown)
