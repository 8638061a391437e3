"""What a server's answer means when it is not the one hoped for: try again, this call is refused, or stop the run."""

import email.utils
import json
import re
import time
from typing import Any

from alignlab.errors import ConfigError, masked
from alignlab.io.endpoint import Endpoint

AGAIN = (408, 409, 425, 429)
"""Statuses below 500 after which the same call may work."""
NO_MONEY = ("insufficient_quota", "billing_hard_limit_reached", "billing_not_active", "insufficient_balance")
WRONG_KEY = ("invalid_api_key", "account_deactivated", "authentication_error")
_GO_ON = "what is known is kept, and the same command goes on from here"
MOST_SAID = 200
"""Characters of a server's own words in an error."""


class Transient(Exception):
    """This try failed in a way that another may not.

    Args:
        kind: what the counts call it.
        retry_after: seconds that the server asks to wait, or None.
    """

    def __init__(self, kind: str, retry_after: float | None = None) -> None:
        super().__init__(kind)
        self.kind, self.retry_after = kind, retry_after


class Refused(Exception):
    """The server will not answer this call, however often it is asked; the others may be fine."""

    def __init__(self, kind: str, said: str) -> None:
        super().__init__(kind)
        self.kind, self.said = kind, said


def body_of(response: Any, endpoint: Endpoint) -> dict[str, Any]:
    """The JSON object of an answer with status 2xx.

    Raises:
        Transient: if there is none, as with a login page, a proxy's notice, or a body that was cut.
        ConfigError: if the object says that key or money are wrong.
    """
    try:
        body = json.loads(response.content)
    except (ValueError, RecursionError):
        raise Transient("not JSON") from None
    if not isinstance(body, dict):
        raise Transient("wrong shape: no JSON object")
    error = _error(body)
    if error:
        _stop_if_hopeless(error, endpoint, response.status_code)
        raise Transient("error with status 200")
    return body


def fault_of(response: Any, endpoint: Endpoint, model: str) -> Exception:
    """What an answer with another status means."""
    status = int(response.status_code)
    try:
        error = _error(json.loads(response.content))
    except (ValueError, RecursionError):
        error = {}
    if status in AGAIN or status >= 500:
        if status == 429:
            _stop_if_hopeless(error, endpoint, status)
        return Transient(str(status), retry_after(response.headers))
    if status < 400:  # followed, it would carry the key and the judged text to whatever place a stranger names
        return Transient(f"redirect {status}")
    if status == 402:
        return _no_money(endpoint, status)
    if status in (401, 403, 407):
        return _wrong_key(endpoint, status, error)
    if status in (404, 405, 410):
        what = f"{endpoint.section}.base_url={endpoint.base_url}: knows no such path, or no model {model}"
        return ConfigError(f"{what} ({status}{_said(error, endpoint)}); most addresses end in /v1; {_GO_ON}")
    kind = "content_filter" if "content_filter" in _codes(error) else f"refused_{status}"
    return Refused(kind, f"{status}{_said(error, endpoint)}")


def retry_after(headers: Any) -> float | None:
    """Seconds to wait by the headers Retry-After-Ms or Retry-After, which holds seconds or a date; None without."""
    for name, unit in (("retry-after-ms", 1000.0), ("retry-after", 1.0)):
        try:
            return max(float(headers[name]) / unit, 0.0)
        except (KeyError, ValueError):
            continue
    date = email.utils.parsedate_tz(headers.get("retry-after", ""))
    return None if date is None else max(email.utils.mktime_tz(date) - time.time(), 0.0)


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
    return ConfigError(f"{who}: the account behind this key has no quota left ({status}); {_GO_ON}")


def _wrong_key(endpoint: Endpoint, status: int, error: dict[str, Any]) -> ConfigError:
    if endpoint.api_key_env is None:
        return ConfigError(f"{endpoint.section}.api_key_env=null: {endpoint.base_url} wants a key ({status}); {_GO_ON}")
    who = f"{endpoint.section}.api_key_env={endpoint.api_key_env}"
    said = _said(error, endpoint)
    return ConfigError(f"{who}: {endpoint.base_url} refuses the key that it holds ({status}{said}); {_GO_ON}")


def _said(error: dict[str, Any], endpoint: Endpoint) -> str:
    """The server's own words on one line, with nothing in them that looks like a key."""
    words = " ".join(str(error.get("message") or "").split())
    key = endpoint.key()
    if key:
        words = words.replace(key, "***")
    words = masked(re.sub(r"\S*\*\*\S*", "***", words))
    return f": {words[:MOST_SAID]}" if words else ""
