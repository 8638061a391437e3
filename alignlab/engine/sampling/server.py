"""Continuations by an OpenAI-compatible server: the open turn is rendered here and sent to /v1/completions."""

import hashlib
import itertools
from collections.abc import Iterator, Sequence
from typing import Any

from alignlab.config.schema import ServerGeneratorConfig
from alignlab.engine.sampling.base import OnDone, PrefixRequest, sample_id
from alignlab.engine.sampling.trim import TrimCounts, Trimmer
from alignlab.errors import ConfigError
from alignlab.io.client import Call, Reply
from alignlab.io.endpoint import MOST_BYTES, endpoint_at
from alignlab.io.openai_protocol import openai_server
from alignlab.io.prefix import common_prefix
from alignlab.models.prompts import PromptEncoder
from alignlab.runs.progress import say

_FINISHES = {
    **dict.fromkeys(("stop", "eos", "eos_token", "end_turn", "stop_sequence"), "stop"),
    **dict.fromkeys(("length", "max_tokens", "max_length"), "length"),
}
"""What servers call the end of a text -> what it is."""
BYTES_PER_TOKEN = 2048
"""Of an answer, log-probabilities of other tokens included."""
_CUT_TOKENS = 8
"""A text that was cut inside a word can come back in other tokens there: so many at its end at most."""


def ask_server(
    requests: Sequence[PrefixRequest],
    *,
    config: ServerGeneratorConfig,
    seed: int,
    encoder: PromptEncoder,
    on_done: OnDone,
) -> TrimCounts:
    """Asks for every missing sample; prefixes of one text follow one another, so that the server's cache knows them.

    Args:
        requests: what to continue.
        config: server and sampling settings.
        seed: with the id of a call's first sample it makes the call's seed.
        encoder: the served model's tokenizer and template.
        on_done: told of every continuation as it comes, in this thread.

    Returns:
        Counts of what was cut because the server wrote more than it was asked for.

    Raises:
        ConfigError: if a text cannot be sent, or the server wants another key, address or money, or refuses a call.
        NoAnswer: if it does not answer in time; what it answered has been told.
        ValueError: if two requests have one id, or a prefix is empty.
    """
    if len({request.id for request in requests}) < len(requests) or not all(row.prefix_ids for row in requests):
        raise ValueError("requests need ids of their own and prefixes that are not empty")
    return _Session(requests, config, seed, encoder, on_done).run()


class _Session:
    """One session: which samples each call is for, and what it carries."""

    def __init__(
        self,
        requests: Sequence[PrefixRequest],
        config: ServerGeneratorConfig,
        seed: int,
        encoder: PromptEncoder,
        on_done: OnDone,
    ) -> None:
        self._config, self._seed, self._tokenizer, self._on_done = config, seed, encoder.tokenizer, on_done
        stops = frozenset({encoder.end_id, int(encoder.tokenizer.eos_token_id)})
        self._trimmer = Trimmer(encoder.tokenizer, stops, config.max_new_tokens)
        ordered = sorted((row for row in requests if any(True for _ in row.missing())), key=lambda row: row.prefix_ids)
        self._prompts = self._rendered(ordered)
        self._requests = {request.id: request for request in ordered}
        self._texts = {name: self._text_of(prompt) for name, prompt in self._prompts.items()}
        """Request -> its prompt as text, which a server may repeat."""
        self._samples: dict[str, tuple[str, list[int]]] = {}
        """Call -> request and samples."""
        longest = min(MOST_BYTES + config.samples_per_call * config.max_new_tokens * BYTES_PER_TOKEN, 2**26)
        endpoint = endpoint_at(config.base_url, config, section="generator", most_bytes=longest)
        self._server = openai_server(endpoint, check=wrong_shape)

    def run(self) -> TrimCounts:
        self._server.ask(self._calls(), self._on_reply)
        for line in self._trimmer.counts.said(self._config.max_new_tokens):
            say(line)
        return self._trimmer.counts

    def _rendered(self, requests: Sequence[PrefixRequest]) -> dict[str, list[int] | str]:
        if self._config.prompt_format == "tokens":
            return {request.id: request.prefix_ids for request in requests}
        texts: dict[str, list[int] | str] = {}
        recut = 0
        for request in requests:
            text, exact = text_of(self._tokenizer, request)
            texts[request.id] = text
            recut += not exact
        if recut:
            say(f"{recut} of {len(texts)} prefixes are cut where the server reads the same text in other tokens")
        return texts

    def _text_of(self, prompt: list[int] | str) -> str:
        return prompt if isinstance(prompt, str) else str(self._tokenizer.decode(prompt))

    def _calls(self) -> Iterator[Call]:
        step = self._config.samples_per_call
        for request in self._requests.values():
            missing = list(request.missing())
            for start in range(0, len(missing), step):
                yield self._call(request.id, missing[start : start + step])

    def _call(self, request_id: str, samples: list[int]) -> Call:
        first = sample_id(request_id, samples[0])
        digest = hashlib.sha256(f"{self._seed}/{first}".encode()).digest()
        body = {
            "model": self._config.model,
            "prompt": self._prompts[request_id],
            "max_tokens": self._config.max_new_tokens,
            "temperature": self._config.temperature,
            "top_p": self._config.top_p,
            **self._config.extra_body,
        }
        if self._config.send_seed:
            body["seed"] = int.from_bytes(digest[:4], "little") >> 1
        if len(samples) > 1:
            body["n"] = len(samples)
        self._samples[first] = (request_id, samples)
        return Call(first, "completions", body)

    def _on_reply(self, reply: Reply) -> Call | None:
        request_id, samples = self._samples.pop(reply.call.id)
        if reply.body is None:
            raise self._refused(reply)
        choices = sorted(reply.body["choices"], key=_index)
        prompt = self._texts[request_id]
        for sample, choice in zip(samples, choices, strict=False):
            found = self._trimmer.continuation(
                choice["text"], _FINISHES[choice["finish_reason"]], choice.get("token_ids"), prompt=prompt
            )
            self._on_done(request_id, sample, found)
        rest = samples[len(choices) :]
        return self._call(request_id, rest) if rest else None

    def _refused(self, reply: Reply) -> ConfigError:
        hint = ""
        if self._config.prompt_format == "tokens":
            hint = "; a server that takes no token ids needs generator.prompt_format=text"
        where = f"generator.base_url={self._config.base_url}"
        return ConfigError(f"{where}: the server refuses a prefix ({reply.refusal}); its log says why{hint}")


def wrong_shape(body: dict[str, Any]) -> str | None:
    """What is wrong with an answer of /v1/completions, or None."""
    choices = body.get("choices")
    if not (isinstance(choices, list) and choices and all(isinstance(choice, dict) for choice in choices)):
        return "no choices"
    if not all(isinstance(choice.get("text"), str) for choice in choices):
        return "no text"
    ends = [choice.get("finish_reason") for choice in choices]
    unknown = [end for end in ends if not (isinstance(end, str) and end in _FINISHES)]
    return f"finish_reason is {unknown[0]!r:.40}" if unknown else None


def _index(choice: dict[str, Any]) -> int:
    """Where a choice stands among the others; 0, in the server's order, where it does not say so by a number."""
    index = choice.get("index")
    return index if isinstance(index, int) else 0


def text_of(tokenizer: Any, request: PrefixRequest) -> tuple[str, bool]:
    """A text that a server's tokenizer reads as the request's tokens, and whether it does so to the last one.

    Raises:
        ConfigError: if there is none, e.g. because a special token's text in the data would become the token.
    """
    ids = request.prefix_ids
    special = set(tokenizer.all_special_ids)
    best, found = 0, ""
    for text in _candidates(tokenizer, ids, special):
        back = tokenizer(text)["input_ids"]
        if back == ids:
            return text, True
        shared = common_prefix(ids, back)
        cut = len(ids) - shared <= _CUT_TOKENS and not special & {*ids[shared:], *back[shared:]}
        if cut and shared > best:
            best, found = shared, text
    if best:
        return found, False
    raise ConfigError(
        f"generator.prompt_format=text: the tokenizer does not read request {request.id} back as the same tokens; "
        "use generator.prompt_format=tokens with a server that takes token ids"
    )


def _candidates(tokenizer: Any, ids: list[int], special: set[int]) -> Iterator[str]:
    """Texts that may be read back as the tokens.

    With the first one, or without it where the server adds a BOS; decoded as a whole, or piece by piece between special
    tokens, where a tokenizer puts a space before each piece.
    """
    for part in (ids, ids[1:]):
        yield tokenizer.decode(part, clean_up_tokenization_spaces=False)
        pieces = [list(group) for _, group in itertools.groupby(part, key=lambda token: token in special)]
        yield "".join(tokenizer.decode(piece, clean_up_tokenization_spaces=False) for piece in pieces)
