"""From a request to prompt tokens and response tokens: one place for templates, BOS, EOS and the boundary."""

from array import array
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from hashlib import blake2b
from typing import Any

from alignlab.data.records import CutText, Prompt, Turn, as_said, fill_template
from alignlab.io.prefix import common_prefix
from alignlab.models.chat import ChatTemplate, Split
from alignlab.models.rendering import TemplateError

TEXTS_AT_ONCE = 4096
"""Texts that are tokenised together: what a tokenizer says of them besides their ids takes far more memory."""

_Splitter = Callable[[ChatTemplate, Sequence[tuple[Sequence[Turn], str]]], list[Split]]


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
        key: what the model stands under, for errors.

    Raises:
        TemplateError: if the template is None and the tokenizer has no chat template that can be used, or if it has no
            EOS token.
    """

    def __init__(self, tokenizer: Any, template: str | None, *, key: str = "model.path") -> None:
        setting = f"{key.rpartition('.')[0]}.prompt_template"
        if template is None and not getattr(tokenizer, "chat_template", None):
            remedy = "give a text with {raw_prompt}, such as 'USER: {raw_prompt} ASSISTANT:'"
            raise TemplateError(f"{setting}=null: {tokenizer.name_or_path} has no chat template; {remedy}")
        if tokenizer.eos_token_id is None:
            what = (
                "its tokenizer has no EOS token, so a response could never end; set eos_token in tokenizer_config.json"
            )
            raise TemplateError(f"{key}={tokenizer.name_or_path}: {what}")
        self.tokenizer = tokenizer
        self.template = template
        self._chat = ChatTemplate(tokenizer, key=setting) if template is None else None
        self._gap = "" if template is None else template[len(template.rstrip(" ")) :]
        """A string template's last spaces: with the answer's first word they are a token, alone they are another."""
        self.end_id = self._chat.end_id if self._chat else int(tokenizer.eos_token_id)
        """The token that ends a response."""
        self._known: dict[tuple[Prompt, str, bool], Encoded] = {}
        """What was tokenised before, by this run or an earlier one of the process: a sweep reads its data once."""
        self._numbers = list(range(len(tokenizer)))
        """One int object a token; a tokenizer makes a new one at each position, which takes four times the memory."""

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Tokens of the rendered prompt; they begin with one BOS if the tokenizer puts one before texts."""
        turns = _turns(prompt)
        return self._tokens_of([self._render(turns)] if self._chat is None else self._chat.prompts([turns]))[0]

    def encode(self, prompt: Prompt, response: str) -> Encoded:
        """Tokens of prompt and response, as the tokenizer reads them in one text; the end token is appended once.

        A `CutText` gets none.
        """
        return self.encode_all([(prompt, response)])[0]

    def encode_all(self, texts: Sequence[tuple[Prompt, str]], *, sampled: bool = False) -> list[Encoded]:
        """The same for many (prompt, response), tokenised together; of equal ones once, and they share their tokens.

        Args:
            texts: prompts and responses.
            sampled: a model wrote the responses: one that the chat template would change keeps the model's words.

        Raises:
            TemplateError: if a chat template refuses a prompt, drops a turn, or changes a response of the data.
        """
        new = [given for given in dict.fromkeys(texts) if (*given, sampled) not in self._known]
        encoded = self._encoded(new, lambda chat, part: chat.splits(part, sampled=sampled))
        self._known.update(((*given, sampled), row) for given, row in zip(new, encoded, strict=True))
        return [self._known[(*given, sampled)] for given in texts]

    def open_all(self, texts: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        """The same for answers that have only begun: no end token, and a thought is text like any other."""
        rows = self._encoded(texts, lambda chat, part: chat.opened(part))
        return [replace(row, response_ids=row.response_ids[:-1]) for row in rows]

    def _encoded(self, texts: Sequence[tuple[Prompt, str]], split: _Splitter) -> list[Encoded]:
        found: list[Encoded] = []
        for start in range(0, len(texts), TEXTS_AT_ONCE):
            part = texts[start : start + TEXTS_AT_ONCE]
            given = [(_turns(prompt), response) for prompt, response in part]
            splits = list(map(self._by_string, given)) if self._chat is None else split(self._chat, given)
            asked = list(dict.fromkeys(one.prompt for one in splits))
            prompts = dict(zip(asked, self._tokens_of(asked), strict=True))
            whole = self._tokens_of([one.whole for one in splits])
            for pair, one, ids in zip(part, splits, whole, strict=True):
                end = [] if isinstance(pair[1], CutText) else [self.end_id]
                found.append(_split(prompts[one.prompt], [*ids, *end], *pair))
        return found

    def _by_string(self, given: tuple[Sequence[Turn], str]) -> Split:
        text = self._render(given[0])
        return Split(text, text + self._gap + given[1])

    def response_text(self, row: Encoded) -> str:
        """Text of a row's response, up to and without the first token that ends it.

        White space is the response's own: only the template's, which a response's tokens may begin with, goes.
        """
        ids, ends = row.response_ids, (self.end_id, self.tokenizer.eos_token_id)
        end = next((index for index, token in enumerate(ids) if token in ends), len(ids))
        text = text_after(self.tokenizer, row.prompt_ids, ids[:end])
        before, after = (len(self._gap), 0) if self._chat is None else self._chat.margins
        text = text[min(len(text) - len(text.lstrip()), before) :]
        return text if end == len(ids) else text[: len(text) - min(len(text) - len(text.rstrip()), after)]

    def said(self, row: Encoded) -> str:
        """The same as rewards take it: a `CutText` if no token ended the response."""
        return as_said(self.response_text(row), "stop" if self.has_ended(row.response_ids) else "length")

    def has_ended(self, ids: list[int]) -> bool:
        """Whether the last of a response's tokens ends it; a model may know more such than its tokenizer."""
        if not ids:
            return False
        if ids[-1] in (self.end_id, self.tokenizer.eos_token_id):
            return True
        added = self.tokenizer.added_tokens_decoder.get(ids[-1])
        begins = (self.tokenizer.bos_token_id, self.tokenizer.unk_token_id)
        return added is not None and added.special and ids[-1] not in begins

    def reopened_ids(self, prompt: Prompt, answer: str) -> list[int]:
        """Tokens of a conversation whose answer is over, with the assistant's header again; of a chat template."""
        assert self._chat is not None
        return self._tokens_of([self._chat.reopened(_turns(prompt), answer)])[0]

    def literal(self, turns: Sequence[Turn]) -> str:
        """The chat template's text of turns and a generation prompt; control tokens in their words stay such."""
        assert self._chat is not None
        return self._chat.literal(turns)

    def _render(self, turns: Sequence[Turn]) -> str:
        """The turns by the string template."""
        assert self.template is not None
        return fill_template(self.template, turns).removesuffix(self._gap)

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


_CONTEXT = 8
"""Tokens of the prefix that are decoded along: a tokenizer drops a text's first space, and characters span tokens."""


def text_after(tokenizer: Any, prefix_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """Text of tokens as they follow a prefix, without special tokens.

    Args:
        tokenizer: a transformers tokenizer.
        prefix_ids: tokens before.
        token_ids: tokens whose text is wanted.
    """
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = list(prefix_ids[-_CONTEXT:])
    prefix = str(tokenizer.decode(before, **options))
    whole = str(tokenizer.decode([*before, *token_ids], **options))
    return whole[len(prefix) :] if whole.startswith(prefix) else str(tokenizer.decode(list(token_ids), **options))


def _split(prompt_ids: list[int], ids: list[int], prompt: Prompt, response: str) -> Encoded:
    merged = ids[: len(prompt_ids)] != prompt_ids
    shared = common_prefix(prompt_ids, ids) if merged else len(prompt_ids)
    return Encoded(ids[:shared] if merged else prompt_ids, ids[shared:], prompt, response, merged)


def _turns(prompt: Prompt) -> tuple[Turn, ...]:
    return (Turn("user", prompt),) if isinstance(prompt, str) else prompt
