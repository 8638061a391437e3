"""A tokenizer's own chat template: what it writes around an answer, and its control tokens kept apart from data.

transformers' `sanitize_control_tokens` does the second for whole conversations alone; here a response follows a prompt
in one text, and text that a model may rightly write, such as `<think>`, keeps its token in responses.
"""

import re
from collections.abc import Iterable, Sequence
from typing import Any

from alignlab.data.records import Turn

_OPEN, _CLOSE = "\ufdd0", "\ufdd1"
"""Around data that looks like a control token, until it is tokenised: code points that no text may hold."""
_ANSWER = "stand-in"
_MARKED = re.compile(f"{_OPEN}([^{_CLOSE}]*){_CLOSE}|[{_OPEN}{_CLOSE}]")


class ChatTemplate:
    """Renders conversations up to the assistant's answer.

    Args:
        tokenizer: a transformers tokenizer with a chat template.
    """

    def __init__(self, tokenizer: Any) -> None:
        self.tokenizer = tokenizer
        asked = self._written([Turn("user", "hello")])
        before, after = self._around_answer(asked)
        self.end_id = self._first_control(after)
        """The token that ends an answer: of Gemma <end_of_turn>, where the tokenizer's EOS ends the text."""
        self.before_answer = before if before.isspace() else ""
        """Blanks that an answer begins with, as Llama-2's space: they share a token with its first word."""
        self._after_prompt = "" if before.isspace() else before
        """What comes before an answer and is not the model's to say, as Qwen3's empty thought."""
        bos = tokenizer.bos_token_id
        self._lacks_bos = bos is not None and tokenizer("a")["input_ids"][:1] == [bos] != self._ids(asked)[:1]
        template = str(tokenizer.get_chat_template())
        added = tokenizer.added_tokens_decoder.values()
        special = [token.content for token in added if token.special]
        self._in_prompts = _any_of([*special, *(token.content for token in added if token.content in template)])
        self._in_answers = _any_of([*special, *(token.content for token in added if token.content in asked)])

    def prompt(self, turns: Sequence[Turn]) -> str:
        """The text of a conversation that ends with the user, up to where the answer begins."""
        marked = [Turn(turn.role, _marked(turn.content, self._in_prompts)) for turn in turns]
        return self._written(marked) + self._after_prompt

    def answer(self, text: str) -> str:
        """The text of an answer; the blanks around it are not its own, most templates drop them."""
        return self.before_answer + _marked(text.strip(), self._in_answers)

    def tokens_of(self, texts: Sequence[str]) -> list[list[int]]:
        """Tokens of rendered texts: the template's control tokens are tokens, those in data are text."""
        plain = [text for text in texts if _OPEN not in text]
        read = iter(self.tokenizer(plain, add_special_tokens=False)["input_ids"] if plain else [])
        rows = [self._ids_by_piece(text) if _OPEN in text else list(next(read)) for text in texts]
        return [[self.tokenizer.bos_token_id, *row] for row in rows] if self._lacks_bos else rows

    def _written(self, turns: Iterable[Turn], *, ask: bool = True) -> str:
        messages = [{"role": turn.role, "content": turn.content} for turn in turns]
        return str(self.tokenizer.apply_chat_template(messages, add_generation_prompt=ask, tokenize=False))

    def _around_answer(self, asked: str) -> tuple[str, str]:
        """What the template writes between a prompt and the answer to it, and after the answer."""
        try:
            whole = self._written([Turn("user", "hello"), Turn("assistant", _ANSWER)], ask=False)
        except Exception:  # templates raise what they like
            return "", ""
        head, said, after = whole.rpartition(_ANSWER)
        before = head[len(asked) :] if head.startswith(asked) else ""
        return (before, after) if said else ("", "")

    def _first_control(self, text: str) -> int:
        known = self.tokenizer.added_tokens_decoder
        return next((token for token in self._ids(text) if token in known), int(self.tokenizer.eos_token_id))

    def _ids(self, text: str) -> list[int]:
        ids: list[int] = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return ids

    def _ids_by_piece(self, text: str) -> list[int]:
        """Marked pieces as text, the others as the template's."""
        pieces = _MARKED.split(text)  # other, marked, other, marked, ..., other
        ids = self._ids(pieces[0])
        for place, piece in enumerate(pieces[1:], 1):
            if piece:
                ids += self._as_text(piece) if place % 2 else self._inside(piece)
        return ids

    def _as_text(self, token: str) -> list[int]:
        """A control token's name as ordinary text."""
        ids = self._inside(token, split_special_tokens=True)
        if not set(ids) & self.tokenizer.added_tokens_decoder.keys():
            return ids
        return self._inside(token[:1]) + self._inside(token[1:])  # an added token that is no special one is not split

    def _inside(self, text: str, **options: bool) -> list[int]:
        """Tokens of a text that other text stands before: some tokenizers put a space in front of a first word."""
        first = self.tokenizer("\n", add_special_tokens=False)["input_ids"]
        ids: list[int] = self.tokenizer("\n" + text, add_special_tokens=False, **options)["input_ids"]
        if ids[: len(first)] == first:
            return ids[len(first) :]
        alone: list[int] = self.tokenizer(text, add_special_tokens=False, **options)["input_ids"]
        return alone


def _any_of(tokens: Iterable[str]) -> re.Pattern[str]:
    longest_first = sorted({token for token in tokens if token.strip()}, key=len, reverse=True)
    return re.compile("|".join(map(re.escape, longest_first)) or "(?!)")


def _marked(text: str, control: re.Pattern[str]) -> str:
    text = re.sub(f"[{_OPEN}{_CLOSE}]", "", text)
    return control.sub(f"{_OPEN}\\g<0>{_CLOSE}", text)
