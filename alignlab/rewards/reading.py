"""What a scorer with a tokenizer of its own reads: prompt and response as one row of tokens."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.data.records import CutText, Prompt, Turn, fill_template, prompt_text
from alignlab.errors import ConfigError
from alignlab.models.chat import ChatTemplate

PAIR = "pair"


@dataclass(frozen=True)
class Tokens:
    """One text as a scorer reads it."""

    ids: list[int]
    types: list[int] | None = None
    """Segment of each token, for models that read two texts."""


class TextReader:
    """Turns prompt and response into tokens; the same for training a scorer and for asking it.

    What looks like a special token in the data is broken up by a space, so that no text can end its own turn.

    Args:
        tokenizer: the scorer's own.
        template: a string with {raw_prompt}, and {response} unless that ends it; None for the tokenizer's chat
            template; `pair` for prompt and response as two texts, as cross-encoders read them.
        eos: append EOS after a whole response, with a string template; a `CutText` has none, nor a chat template's end.
        max_length: longest row in tokens; a longer one is cut at the end.
        key: what the scorer's settings stand under, for errors; `model` for a model that becomes a scorer.

    Raises:
        ConfigError: if the template is None and there is no chat template, or EOS is asked for and there is none.
    """

    def __init__(
        self, tokenizer: Any, *, template: str | None, eos: bool, max_length: int, key: str = "reward"
    ) -> None:
        setting = "model.prompt_template" if key == "model" else f"{key}.template"
        if template is None and not getattr(tokenizer, "chat_template", None):
            raise ConfigError(f"{setting}=null: this scorer has no chat template; give a string with {{raw_prompt}}")
        self.by_string = template not in (None, PAIR)
        if eos and self.by_string and tokenizer.eos_token_id is None:
            raise ConfigError(f"{key}.eos=true: this scorer's tokenizer has no EOS token")
        self.tokenizer, self.template = tokenizer, template
        self.eos, self.max_length = eos, max_length
        self._chat = ChatTemplate(tokenizer, key=setting) if template is None else None
        self._control = _control_tokens(tokenizer, template)
        self.cut = 0
        """Rows that were cut at the limit."""

    def read_all(self, rows: Sequence[tuple[Prompt, str]]) -> list[Tokens]:
        """Tokens of every (prompt, response)."""
        if not rows:
            return []
        if self.template == PAIR:
            found = self.tokenizer(
                [self._plain(prompt_text(prompt)) for prompt, _ in rows],
                [self._plain(response) for _, response in rows],
                truncation="longest_first",
                max_length=self.max_length,
            )
            types = found.get("token_type_ids") or [None] * len(rows)
            return [Tokens(ids, kinds) for ids, kinds in zip(found["input_ids"], types, strict=True)]
        whole = [not isinstance(response, CutText) for _, response in rows]
        dialogues = [self._turns(prompt, response) for prompt, response in rows]
        if self._chat is not None:
            texts = _rendered(self._chat, dialogues, whole)
        else:
            texts = [fill_template(str(self.template), turns) for turns in dialogues]
        found = self.tokenizer(texts, add_special_tokens=self.by_string)["input_ids"]
        return [Tokens(self._ended(ids, eos=self.eos and end)) for ids, end in zip(found, whole, strict=True)]

    def _turns(self, prompt: Prompt, response: str) -> tuple[Turn, ...]:
        turns = (Turn("user", prompt),) if isinstance(prompt, str) else prompt
        return tuple(Turn(turn.role, self._plain(turn.content)) for turn in (*turns, Turn("assistant", response)))

    def _ended(self, ids: list[int], *, eos: bool) -> list[int]:
        """The row with one BOS and, where asked for, one EOS; a row over the limit is cut and has not ended."""
        bos, end = self.tokenizer.bos_token_id, self.tokenizer.eos_token_id
        if bos is not None and ids[:2] == [bos, bos]:
            ids = ids[1:]
        if self.by_string and end is not None:
            ids = ids[:-1] if ids[-1:] == [end] else ids  # some tokenizers add EOS, and a template may end with it
            ids = [*ids, end] if eos else ids
        self.cut += len(ids) > self.max_length
        return ids[: self.max_length]

    def _plain(self, text: str) -> str:
        for token in self._control:
            if token in text:
                text = text.replace(token, f"{token[:1]} {token[1:]}")
        return text


def _rendered(chat: ChatTemplate, dialogues: Sequence[tuple[Turn, ...]], whole: Sequence[bool]) -> list[str]:
    """Each dialogue by the chat template, without what it writes after the last turn where that is not whole."""
    ended = iter(chat.dialogues([turns for turns, end in zip(dialogues, whole, strict=True) if end], ask=False))
    cut = [(turns[:-1], turns[-1].content) for turns, end in zip(dialogues, whole, strict=True) if not end]
    begun = iter(chat.splits(cut, sampled=True))
    return [next(ended) if end else next(begun).whole for end in whole]


def _control_tokens(tokenizer: Any, template: str | None) -> list[str]:
    """The texts of tokens that are no words, longest first: special ones, and added ones that the template writes."""
    written = template if template is not None else str(tokenizer.get_chat_template())
    added = tokenizer.added_tokens_decoder.values()
    found = {token.content for token in added if token.special or token.content in written}
    return sorted((token for token in found if token.strip()), key=len, reverse=True)
