"""What a judge's calls cost, and the stop before they cost too much."""

import time
from typing import Any

from alignlab.config.schema import OpenAIJudgeConfig
from alignlab.errors import ConfigError
from alignlab.io.client import Call, Reply
from alignlab.judges.memo import Memo

CHARACTERS_PER_TOKEN = 4
"""Of English text; for estimates before the server has counted."""
_SAVE_SECONDS = 1.0


class Budget:
    """Tokens and money of one run's judge, also over several attempts at the run.

    A call is made only if it and those in flight cannot pass the limit by estimate: its prompt at four characters a
    token (or as many as the server counted for the last ones), its answer at full length.

    Args:
        config: prices and limit.
        memo: where the sums are kept between attempts.
        key: what the judge's settings stand under, for errors.
    """

    def __init__(self, config: OpenAIJudgeConfig, memo: Memo, *, key: str = "judge") -> None:
        self._config, self._memo, self._key = config, memo, key
        self._spent: dict[str, int] = {"tokens_in": 0, "tokens_out": 0, "calls": 0, **memo.get("spent", {})}
        self._reserved: dict[str, int] = {}
        self._saved = time.monotonic()
        self._ratio = 1.0

    def require_room(self, call: Call) -> None:
        """Raises ConfigError if a call may cost more than is left."""
        estimate = self._estimate(call)
        waiting = len(self._reserved) + 1
        most = self.cost(
            self._spent["tokens_in"] + sum(self._reserved.values()) + estimate,
            self._spent["tokens_out"] + waiting * self._config.max_tokens,
        )
        limit = self._config.max_usd
        if limit is not None and most is not None and most > limit:
            spent = self.cost(self._spent["tokens_in"], self._spent["tokens_out"])
            raise ConfigError(
                f"{self._key}.max_usd={limit:g}: is reached ({spent:.4f} USD spent so far); the verdicts so far are "
                "kept, and the same command with a higher limit goes on from here"
            )

    def hold(self, call: Call) -> None:
        """Sets aside what a call may cost, until it is settled."""
        self._reserved[call.id] = self._estimate(call)

    def _estimate(self, call: Call) -> int:
        return int(self._ratio * sum(tokens_of(message["content"]) for message in call.body["messages"]))

    def settle(self, reply: Reply) -> None:
        """Takes what a call did cost, by the server's count or else by estimate."""
        estimate = self._reserved.pop(reply.call.id, 0)
        if reply.body is None:
            return
        usage = reply.body.get("usage")
        usage = usage if isinstance(usage, dict) else {}
        tokens_in, tokens_out = (_count(usage.get(name)) for name in ("prompt_tokens", "completion_tokens"))
        if tokens_in is not None and estimate:
            self._ratio = max(self._ratio, self._ratio * tokens_in / estimate)
        self._spent["tokens_in"] += estimate if tokens_in is None else tokens_in
        self._spent["tokens_out"] += self._config.max_tokens if tokens_out is None else tokens_out
        self._spent["calls"] += 1
        if time.monotonic() - self._saved > _SAVE_SECONDS:
            self.save()

    def cost(self, tokens_in: float, tokens_out: float) -> float | None:
        """US dollars, or None where a price is unknown."""
        config = self._config
        if config.usd_per_million_input_tokens is None or config.usd_per_million_output_tokens is None:
            return None
        prices = tokens_in * config.usd_per_million_input_tokens + tokens_out * config.usd_per_million_output_tokens
        return prices / 1e6

    def record(self) -> dict[str, Any]:
        """The sums, for result.json."""
        return {**self._spent, "usd": self.cost(self._spent["tokens_in"], self._spent["tokens_out"])}

    def save(self) -> None:
        """Writes the sums down."""
        self._saved = time.monotonic()
        self._memo.keep("spent", self._spent)


def tokens_of(text: str) -> int:
    """Roughly how many tokens a text has."""
    return len(text) // CHARACTERS_PER_TOKEN + 1


def _count(value: Any) -> int | None:
    """A server's count of tokens; None if it is none, as a negative one, which would give money back."""
    return value if type(value) is int and value >= 0 else None
