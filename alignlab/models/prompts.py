"""From a request to prompt tokens and response tokens: one place for templates, BOS, EOS and the boundary."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from alignlab.data.records import Prompt, Turn


@dataclass(frozen=True)
class Encoded:
    """Token ids of one prompt and one response; the response ends with EOS."""

    prompt_ids: list[int]
    response_ids: list[int]
    prompt: Prompt | None = field(default=None, compare=False, repr=False)
    """What the tokens were made of, for rewards that read texts; None where that is not known."""
    response: str | None = field(default=None, compare=False, repr=False)


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
        self.merged = 0
        """Responses whose first characters share a token with the prompt's end; there the boundary moves left."""

    def prompt_ids(self, prompt: Prompt) -> list[int]:
        """Tokens of the rendered prompt, with BOS if the tokenizer adds one."""
        return self._tokens_of([self._render(prompt)])[0]

    def encode(self, prompt: Prompt, response: str) -> Encoded:
        """Tokens of prompt and response, as the tokenizer reads them in one text; EOS is appended once."""
        return self.encode_all([(prompt, response)])[0]

    def encode_all(self, texts: Sequence[tuple[Prompt, str]]) -> list[Encoded]:
        """The same for many (prompt, response), tokenised together."""
        if not texts:
            return []
        rendered = {prompt: self._render(prompt) for prompt, _ in texts}
        prompts = dict(zip(rendered, self._tokens_of(list(rendered.values())), strict=True))
        whole = self._tokens_of([rendered[prompt] + response for prompt, response in texts])
        rows = (self._split(prompts[prompt], ids) for (prompt, _), ids in zip(texts, whole, strict=True))
        return [Encoded(*ids, *given) for ids, given in zip(rows, texts, strict=True)]

    def _split(self, prompt: list[int], text: list[int]) -> tuple[list[int], list[int]]:
        shared = _common_prefix(prompt, text)
        self.merged += shared < len(prompt)
        eos = int(self.tokenizer.eos_token_id)
        response_ids = text[shared:]
        if not response_ids or response_ids[-1] != eos:
            response_ids = [*response_ids, eos]
        return text[:shared], response_ids

    def response_text(self, ids: list[int]) -> str:
        """Text of generated tokens, up to and without EOS."""
        eos = self.tokenizer.eos_token_id
        end = ids.index(eos) if eos in ids else len(ids)
        return str(self.tokenizer.decode(ids[:end], skip_special_tokens=True)).strip()

    def raw_prompt(self, ids: list[int]) -> str:
        """The request inside a rendered prompt; only for string templates of whole words, as the toy's."""
        assert self.template is not None
        before, after = self.template.split("{raw_prompt}")
        text = str(self.tokenizer.decode(ids, skip_special_tokens=True))
        return text[len(before) : len(text) - len(after.rstrip())].strip()

    def _render(self, prompt: Prompt) -> str:
        turns = (Turn("user", prompt),) if isinstance(prompt, str) else prompt
        if self.template is not None:
            return _filled(self.template, turns)
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=True, tokenize=False))

    def _tokens_of(self, texts: list[str]) -> list[list[int]]:
        # A string template holds no special tokens, so what looks like one came with the data and stays text. A chat
        # template writes its own special tokens, BOS among them.
        own = self.template is not None
        rows: list[list[int]] = self.tokenizer(texts, add_special_tokens=own, split_special_tokens=own)["input_ids"]
        eos = self.tokenizer.eos_token_id
        return [ids[:-1] if own and ids and ids[-1] == eos else ids for ids in rows]  # some tokenizers add EOS


def _filled(template: str, turns: Sequence[Turn]) -> str:
    """The turns by a string template: each request filled in, each earlier answer where a response would stand."""
    gap = "\n\n" if "\n" in template else " "
    text = ""
    for turn in turns:
        if turn.role == "user":
            between = gap if text and not template[:1].isspace() else ""
            text += between + template.replace("{raw_prompt}", turn.content)
        else:
            text += turn.content if turn.role == "assistant" else turn.content + gap
    return text


def _common_prefix(left: list[int], right: list[int]) -> int:
    limit = min(len(left), len(right))
    return next((place for place in range(limit) if left[place] != right[place]), limit)
