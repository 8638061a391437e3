"""A judge behind an OpenAI-compatible server: asked many texts at once, within a budget, each answer typed."""

from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from alignlab.config.schema import OpenAIJudgeConfig
from alignlab.errors import ConfigError
from alignlab.io.client import Call, Reply
from alignlab.io.endpoint import endpoint_at
from alignlab.io.hashes import text_id
from alignlab.io.openai_protocol import openai_server
from alignlab.judges.asking import Ask, AskingJudge, OnAnswer
from alignlab.judges.base import ID_DIGITS, Answer, JudgeReport
from alignlab.judges.budget import Budget, tokens_of
from alignlab.judges.known import KNOWN_CASES
from alignlab.judges.wording import ANSWER_SCHEMA, JSON_FORM, build_prompt, prompt_id, read_answer
from alignlab.runs.progress import say

ASKED_AGAIN = ("null_content", "empty", "unparsed")
"""Answers that are asked for once more, for a server's slip looks like them; the second one stands."""
DIALECTS = (
    ("response_format", "max_tokens", "temperature"),
    ("response_format", "max_completion_tokens"),
    ("max_tokens", "temperature"),
    ("max_completion_tokens",),
)
"""Which settings a call carries. A server that refuses the known cases in one dialect is asked in the next."""
TYPICAL_ANSWER_TOKENS = 60
"""Length of an answer in the asked form, for the estimate of a dry run."""


class OpenAIJudge(AskingJudge):
    """A model behind an OpenAI-compatible server.

    Args:
        config: its settings.
        cache: root of what runs share.
        folder: the run's folder.
        key: what its settings stand under, for errors.
    """

    def __init__(
        self, config: OpenAIJudgeConfig, *, cache: Path | None, folder: Path | None, key: str = "judge"
    ) -> None:
        settings = (config.base_url, config.model, config.temperature, config.max_tokens, config.structured)
        judge_id = text_id("openai", *map(str, settings), digits=ID_DIGITS)
        prompts = {name: prompt_id(name, JSON_FORM) for name in config.wordings}
        super().__init__(judge_id, prompts, cache=cache, folder=folder)
        self._config, self._key = config, key
        self._endpoint = endpoint_at(config.base_url, config, section=key)
        self._server = openai_server(
            self._endpoint, check=wrong_shape, keep_unanswered=config.on_no_answer == "unscored"
        )
        self._dialects = DIALECTS if config.structured else DIALECTS[2:]
        self._dialect = int(self.memo.get("dialect", 0))
        self._dialect_of: dict[str, int] = {}
        self._budget = Budget(config, self.memo, key=key)
        self._models: Counter[str] = Counter()

    def _before(self, asks: Sequence[Ask]) -> None:
        if asks:
            self._endpoint.key()

    def _plan(self, asks: Sequence[Ask], report: JudgeReport) -> str | None:
        if not self._config.dry_run:
            return None
        known = self.open_known_cases() if asks else []
        everything = [*known, *asks]
        tokens_in = sum(tokens_of(build_prompt(ask.item, ask.wording)) for ask in everything)
        tokens_out = len(everything) * min(TYPICAL_ANSWER_TOKENS, self._config.max_tokens)
        usd = self._budget.cost(tokens_in, tokens_out)
        money = f"at unknown prices ({self._key}.usd_per_million_*_tokens)" if usd is None else f"roughly {usd:.2f} USD"
        return (
            f"{self._key}.dry_run=true: {report.items} items, {report.texts} different texts, {len(self.wordings)} "
            f"wordings; {len(everything)} calls to make ({len(known)} of them known cases), {report.reused} answers "
            f"known already; roughly {tokens_in} tokens in and {tokens_out} out, {money}. Nothing was called"
        )

    def _ask(self, asks: Sequence[Ask], on_answer: OnAnswer, *, known: bool) -> None:
        by_id = {f"{ask.item.id}\0{ask.wording}": ask for ask in asks}
        again: set[str] = set()

        def on_reply(reply: Reply) -> Call | None:
            """Hand on the answer, or ask again in another way."""
            ask = by_id[reply.call.id]
            self._budget.settle(reply)
            if reply.body is None:
                if known and reply.refusal.startswith("refused_"):
                    return self._in_other_dialect(reply, ask)
                on_answer(ask, Answer(None, reply.refusal))
                return None
            self._models[str(reply.body.get("model"))] += 1
            answer = answer_of(reply.body, ask.item.continuation)
            if answer.reason in ASKED_AGAIN and answer.corrected is None and reply.call.id not in again:
                again.add(reply.call.id)
                self._budget.hold(reply.call)
                return reply.call
            on_answer(ask, answer)
            return None

        try:
            probe = self._call("probe", Ask(KNOWN_CASES[0].item, self.wordings[0]))
            self._server.ask(self._calls(by_id), on_reply, probe=probe)
        finally:
            self._close(say_it=not known)

    def _calls(self, asks: dict[str, Ask]) -> Iterator[Call]:
        for call_id, ask in asks.items():
            call = self._call(call_id, ask)
            self._budget.require_room(call)
            self._budget.hold(call)
            yield call

    def _call(self, call_id: str, ask: Ask) -> Call:
        self._dialect_of[call_id] = self._dialect
        settings: dict[str, Any] = {
            "response_format": {
                "type": "json_schema",
                "json_schema": {"name": "verdict", "strict": True, "schema": ANSWER_SCHEMA},
            },
            "max_tokens": self._config.max_tokens,
            "max_completion_tokens": self._config.max_tokens,
            "temperature": self._config.temperature,
        }
        messages = [{"role": "user", "content": build_prompt(ask.item, ask.wording)}]
        chosen = {name: settings[name] for name in self._dialects[self._dialect]}
        return Call(call_id, "chat/completions", {"model": self._config.model, "messages": messages, **chosen})

    def _in_other_dialect(self, reply: Reply, ask: Ask) -> Call:
        """The same known case in the next dialect.

        Raises:
            ConfigError: if the server refused them all: then it is not the texts that it does not take.
        """
        self._dialect = max(self._dialect, self._dialect_of[reply.call.id] + 1)
        if self._dialect >= len(self._dialects):
            said = f"{self._config.base_url} refuses every call ({reply.said or reply.refusal})"
            raise ConfigError(f"{self._key}.model={self._config.model}: {said}; nothing was judged")
        self.memo.keep("dialect", self._dialect)
        return self._call(reply.call.id, ask)

    def _close(self, *, say_it: bool) -> None:
        self._budget.save()
        traffic = self._server.traffic
        again = sum(traffic.faults.values())
        self.report.usage = {
            "calls": traffic.tries,
            "calls_again": dict(sorted(traffic.faults.items())),
            "models": dict(sorted(self._models.items())),
            **self._budget.record(),
        }
        if again and say_it:
            kinds = ", ".join(f"{kind} x {count}" for kind, count in traffic.faults.most_common())
            say(f"judge: {traffic.tries} calls, {again} of them asked again ({kinds})")


def wrong_shape(body: dict[str, Any]) -> str | None:
    """What is wrong with a chat completion; None if it has one choice with a message whose content is text or null."""
    choices = body.get("choices")
    if not isinstance(choices, list) or not choices:
        return "no choices"
    message = choices[0].get("message") if isinstance(choices[0], dict) else None
    if not isinstance(message, dict):
        return "no message"
    content = message.get("content")
    return None if content is None or isinstance(content, str) else "content is no text"


def answer_of(body: dict[str, Any], continuation: str) -> Answer:
    """The answer in a chat completion of the right shape; whatever is not a whole answer is unscored by name."""
    choice = body["choices"][0]
    message, ending = choice["message"], choice.get("finish_reason")
    content = message.get("content")
    if ending in ("content_filter", "length"):
        return Answer(None, ending)
    if message.get("refusal"):
        return Answer(None, "refusal")
    if content is None:
        return Answer(None, "null_content")
    return read_answer(content, continuation) if content.strip() else Answer(None, "empty")
