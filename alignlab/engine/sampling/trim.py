"""A server's text is not trusted: cut to the tokens that were asked for, and at the end of the turn."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from alignlab.engine.sampling.base import Continuation

SHORTEST_MARKER = 3
"""Characters of a special token's text, below which it is no marker: `<` may be any text."""
SHORTEST_ECHO = 16
"""Characters of a prompt, below which a continuation may begin so by chance."""


@dataclass
class TrimCounts:
    """What servers wrote beyond what was asked for."""

    continuations: int = 0
    too_long: int = 0
    """Cut to max_new_tokens."""
    beyond_turn: int = 0
    """Cut at the end of the turn."""
    echoed: int = 0
    """Cut at the front, where the prompt stood once more."""

    def said(self, limit: int) -> list[str]:
        """A line for each kind of cut that was made."""
        lines = []
        if self.too_long:
            count = f"{self.too_long} of {self.continuations} continuations"
            lines.append(f"generator: the server exceeded max_new_tokens={limit} in {count}; cut to {limit} tokens")
        if self.beyond_turn:
            count = f"{self.beyond_turn} of {self.continuations} continuations"
            lines.append(f"generator: the server wrote on after the end of the turn in {count}; cut there")
        if self.echoed:
            count = f"{self.echoed} of {self.continuations} continuations"
            lines.append(
                f"generator: the server repeated the prompt in front of {count}; cut off. Ask it not to, e.g. by "
                "generator.extra_body={echo: false}: its limit of tokens may count the prompt"
            )
        return lines


class Trimmer:
    """Cuts the texts of one server.

    Args:
        tokenizer: the served model's.
        stops: tokens that end a turn.
        limit: most tokens of a text.
    """

    def __init__(self, tokenizer: Any, stops: frozenset[int], limit: int) -> None:
        self._tokenizer, self._stops, self._limit = tokenizer, stops, limit
        self.counts = TrimCounts()

    def continuation(self, text: str, finish: str, token_ids: Any = None, *, prompt: str = "") -> Continuation:
        """One continuation, cut where the server should have stopped.

        Args:
            text: the server's.
            finish: "stop" or "length", as the server says.
            token_ids: the server's tokens, if it sent any; used only if they are the text's.
            prompt: what the server was asked to continue, with or without special tokens.
        """
        self.counts.continuations += 1
        text = text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")  # no tokenizer reads half a pair
        echo = self._echo_in(text, prompt)
        if echo:
            self.counts.echoed += 1
            text, token_ids = text[echo:], None
        ended = min((text.find(marker) for marker in self._markers if marker in text), default=None)
        if ended is not None:
            self.counts.beyond_turn += text[ended:] not in self._markers
            text, finish, token_ids = text[:ended], "stop", None
        ids = self._checked(token_ids, text)
        if ids is None:
            ids = self._tokenizer.encode(text, add_special_tokens=False)
        written = ids[:-1] if ids and ids[-1] in self._stops else ids
        if len(written) <= self._limit or self._may_fit(text):
            return Continuation(ids, text, finish)
        self.counts.too_long += 1
        return Continuation(written[: self._limit], self._text_of(text, written[: self._limit]), "length")

    def _echo_in(self, text: str, prompt: str) -> int:
        """Characters of a text that repeat the prompt; 0 if it does not."""
        start = len(text) - len(text.lstrip())
        for form in (prompt, "".join(part for part in self._split(prompt) if part not in self._markers)):
            bare, gap = form.strip(), form[len(form.rstrip()) :]
            end = start + len(bare)
            if len(bare) >= SHORTEST_ECHO and text.startswith(bare, start):
                return end + len(gap) if text.startswith(gap, end) else end
        return 0

    def _split(self, text: str) -> list[str]:
        """A text in pieces, each a special token's or other text."""
        return re.split(f"({'|'.join(map(re.escape, self._markers))})", text) if self._markers else [text]

    def _may_fit(self, text: str) -> bool:
        """Whether halves of characters, of which a text only shows U+FFFD, are why it seems too long."""
        if "\ufffd" not in text:
            return False
        return len(self._tokenizer.encode(text.replace("\ufffd", ""), add_special_tokens=False)) <= self._limit

    @cached_property
    def _markers(self) -> tuple[str, ...]:
        """Texts of special tokens: none of them is a continuation's text, and each ends a turn or begins another."""
        special = {*map(str, self._tokenizer.all_special_tokens)}
        special |= set(self._tokenizer.convert_ids_to_tokens(sorted(self._stops)))
        return tuple(sorted((text for text in special if len(text) >= SHORTEST_MARKER), key=len, reverse=True))

    def _checked(self, token_ids: Any, text: str) -> list[int] | None:
        """The server's tokens, if they are tokens and say what its text says."""
        if not isinstance(token_ids, list) or not all(type(token) is int for token in token_ids):
            return None
        written = token_ids[:-1] if token_ids and token_ids[-1] in self._stops else token_ids
        try:
            same = self._decoded(written).strip() == text.strip()
        except (OverflowError, ValueError, TypeError, IndexError, KeyError):
            return None
        return token_ids if same else None

    def _text_of(self, text: str, ids: Sequence[int]) -> str:
        """The beginning of a text that so many of its tokens make."""
        if self._tokenizer.is_fast:
            found = self._tokenizer(text, add_special_tokens=False, return_offsets_mapping=True)
            if found["input_ids"][: len(ids)] == list(ids):
                return text[: found["offset_mapping"][len(ids) - 1][1]]
        return self._decoded(ids)

    def _decoded(self, ids: Sequence[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False))
