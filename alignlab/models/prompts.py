"""From a request to prompt tokens and response tokens: one place for templates, BOS, EOS and the boundary."""

from array import array
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from hashlib import blake2b
from typing import Any

from alignlab.data.records import Prompt, Turn, fill_template
from alignlab.models.chat import ChatTemplate

TEXTS_AT_ONCE = 4096
"""Texts that are tokenised together: what a tokenizer says of them besides their ids takes far more memory."""


@dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt and one response; the response ends with the token that ends a turn, mostly EOS."""

    prompt_ids: list[int]
    response_ids: list[int]
    prompt: Prompt | None = field(default=None, compare=False, repr=False)
    """What the tokens were made of, for rewards that read texts; None where that is not known."""
    response: str | None = field(default=None, compare=False, repr=False)
    merged: bool = field(default=False, compare=False, repr=False)
    """Whether the response's first characters share a token with the prompt's end; the boundary then moves left."""

    @cached_property
    def key(self) -> bytes:
        """Hash of the tokens and of where the response begins, 16 bytes: what a score depends on, beside the scorer."""
        tokens = array("I", self.prompt_ids + self.response_ids).tobytes()
        return blake2b(tokens + len(self.prompt_ids).to_bytes(4, "little"), digest_size=16).digest()


class PromptEncoder:
    """Renders requests by a template and splits prompt and response at a token boundary.

    Args:
        tokenizer: a transformers tokenizer.
        template: a string with {raw_prompt}, or None for the tokenizer's own chat template.

    Raises:
        ValueError: if the template is None and the tokenizer has no chat template, or if it has no EOS token.
    """

    def __init__(self, tokenizer: Any, template: str | None) -> None:
        if template is None and not getattr(tokenizer, "chat_template", None):
            raise ValueError("model.prompt_template=null: this tokenizer has no chat template; give a string")
        if tokenizer.eos_token_id is None:
            raise ValueError("the tokenizer has no EOS token, so a response could never end")
        self.tokenizer = tokenizer
        self.template = template
        self._chat = ChatTemplate(tokenizer) if template is None else None
        self._gap = "" if template is None else template[len(template.rstrip(" ")) :]
        """A string template's last spaces: with the answer's first word they are a token, alone they are another."""
        self.end_id = self._chat.end_id if self._chat else int(tokenizer.eos_token_id)
        """The token that ends a response."""
        self._known: dict[tuple[Prompt, str], Encoded] = {}
        """What was tokenised before, by this run or an earlier one of the process: a sweep reads its data once."""
        self._numbers = list(range(len(tokenizer)))
        """One int object a token; a tokenizer makes a new one at each place, which takes four times the memory."""

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Tokens of the rendered prompt; they begin with one BOS if the tokenizer puts one before texts."""
        return self._tokens_of([self._render(prompt)])[0]

    def encode(self, prompt: Prompt, response: str) -> Encoded:
        """Tokens of prompt and response, as the tokenizer reads them in one text; the end token is appended once."""
        return self.encode_all([(prompt, response)])[0]

    def encode_all(self, texts: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        """The same for many (prompt, response), tokenised together; of equal ones once, and they share their tokens."""
        new = [given for given in dict.fromkeys(texts) if given not in self._known]
        self._known.update(zip(new, self._encoded(new), strict=True))
        return [self._known[given] for given in texts]

    def _encoded(self, texts: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        rendered = {prompt: self._render(prompt) for prompt, _ in texts}
        prompts = dict(zip(rendered, self._tokens_of(list(rendered.values())), strict=True))
        whole = self._tokens_of([rendered[prompt] + self._answer(response) for prompt, response in texts])
        return [self._split(prompts[given[0]], ids, *given) for given, ids in zip(texts, whole, strict=True)]

    def _split(self, prompt_ids: list[int], ids: list[int], prompt: Prompt, response: str) -> Encoded:
        merged = ids[: len(prompt_ids)] != prompt_ids
        shared = _common_prefix(prompt_ids, ids) if merged else len(prompt_ids)
        return Encoded(ids[:shared] if merged else prompt_ids, [*ids[shared:], self.end_id], prompt, response, merged)

    def response_text(self, ids: list[int]) -> str:
        """Text of generated tokens, up to and without the first that ends a response."""
        ends = (self.end_id, self.tokenizer.eos_token_id)
        end = next((place for place, token in enumerate(ids) if token in ends), len(ids))
        return str(self.tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()

    def raw_prompt(self, ids: list[int]) -> str:
        """The request inside a rendered prompt; only for string templates of whole words, as the toy's."""
        assert self.template is not None
        before, after = self.template.split("{raw_prompt}")
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return text[len(before) : len(text) - len(after.rstrip())].strip()

    def _render(self, prompt: Prompt) -> str:
        turns = (Turn("user", prompt),) if isinstance(prompt, str) else prompt
        if self._chat is not None:
            return self._chat.prompt(turns)
        assert self.template is not None
        return fill_template(self.template, turns).removesuffix(self._gap)

    def _answer(self, response: str) -> str:
        return self._chat.answer(response) if self._chat is not None else self._gap + response

    def _tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        rows: list[list[int]] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = self._part_of(texts[start : start + TEXTS_AT_ONCE])
            rows += ([self._numbers[token] for token in ids] for ids in part)
        return rows

    def _part_of(self, texts: Sequence[str]) -> list[list[int]]:
        if self._chat is not None:
            return self._chat.tokens_of(texts)
        # A string template holds no special tokens, so what looks like one came with the data and stays text.
        rows: list[list[int]] = self.tokenizer(texts, split_special_tokens=True)["input_ids"]
        eos = self.tokenizer.eos_token_id
        return [ids[:-1] if ids and ids[-1] == eos else ids for ids in rows]  # some tokenizers add EOS


def _common_prefix(left: list[int], right: list[int]) -> int:
    limit = min(len(left), len(right))
    return next((place for place in range(limit) if left[place] != right[place]), limit)
