"""Prefill: the assistant's turn holds the beginning of an answer and stays open, so that the model goes on from there.

One BOS, one assistant header, no end token after the prefix, and what looks like a special token in the data is text.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.data.records import Prompt
from alignlab.models.prompts import PromptEncoder

TURNS = ("continue", "reinject_header")
"""What a prefix is followed by: nothing; or, as the reference code had it, the turn's end and the next turn's header.

In the second form end tokens that read `</s>` are left out everywhere, because that code removed this one text:
Llama-2's turn stays open, Zephyr's header comes again without an end before it, Llama-3's, Qwen's, Gemma's and Phi's
turns are closed and begun anew. Its second BOS is not repeated.
"""

_STAND_INS = ("a", "1")
"""Two answers whose first tokens differ, to find where the header ends."""


@dataclass(frozen=True)
class CutAnswer:
    """Opener and answer as the tokenizer reads them in one text: every prefix of it shares the tokens of the others."""

    header_ids: list[int]
    """The prompt and the assistant's open header."""
    opener_ids: list[int]
    answer_ids: list[int]
    """A token across the opener's end counts to the answer."""

    def at(self, k: int) -> list[int]:
        """The open turn with the opener and the answer's first k tokens.

        Raises:
            ValueError: unless some of the answer stays unsaid.
        """
        if not 0 <= k < len(self.answer_ids):
            raise ValueError(f"k={k}: the answer has {len(self.answer_ids)} tokens, and at least one must stay unsaid")
        return [*self.header_ids, *self.opener_ids, *self.answer_ids[:k]]


def open_turn(
    encoder: PromptEncoder,
    prompt: Prompt,
    prefix: str | Sequence[int] = "",
    *,
    turn: str = "continue",
) -> list[int]:
    """Tokens of the prompt, with the assistant's turn left open after the prefix.

    Space around a prefix's text is dropped: many templates drop it, and a space that is read alone is not the one that
    a model reads with the word after it. An empty prefix gives the prompt that any answer begins from.

    Args:
        encoder: the subject's tokenizer and template.
        prompt: a request, or a conversation that ends with the user.
        prefix: text, read by the tokenizer together with the prompt; or tokens, which follow the header as they are.
        turn: one of TURNS.

    Raises:
        ValueError: if the chat template refuses the conversation, or does not keep the text (`</think>` in it, say).
    """
    assert turn in TURNS
    if not isinstance(prefix, str):
        assert turn == "continue", "a turn that is closed again is rendered from text"
        return [*header_ids(encoder, prompt), *prefix]
    text = prefix.strip()
    if not text:
        return encoder.prompt_ids(prompt)
    if encoder.template is not None:
        return _string_turn(encoder, prompt, text, turn)
    return _chat_turn(encoder, prompt, text, turn)


def header_ids(encoder: PromptEncoder, prompt: Prompt) -> list[int]:
    """Tokens up to the answer's first: prompt, assistant's header, an empty thought where the family writes one."""
    left, right = (open_turn(encoder, prompt, text) for text in _STAND_INS)
    return left[: _common(left, right)]


def cut_answer(encoder: PromptEncoder, prompt: Prompt, *, opener: str, answer: str) -> CutAnswer:
    """An opener and an answer after it, in tokens, to be cut anywhere.

    Args:
        encoder: the subject's tokenizer and template.
        prompt: a request, or a conversation that ends with the user.
        opener: comes before the answer, with a space between; "" for none.
        answer: the text that prefixes are cut from.
    """
    whole = open_turn(encoder, prompt, f"{opener.strip()} {answer.strip()}")
    start = _common(header_ids(encoder, prompt), whole)
    opened = _common(open_turn(encoder, prompt, opener), whole) if opener.strip() else start
    return CutAnswer(whole[:start], whole[start:opened], whole[opened:])


def _chat_turn(encoder: PromptEncoder, prompt: Prompt, text: str, turn: str) -> list[int]:
    said = [("user", prompt)] if isinstance(prompt, str) else [(turn.role, turn.content) for turn in prompt]
    messages = [{"role": role, "content": content} for role, content in [*said, ("assistant", text)]]
    if turn == "continue":
        return _like_prompt(encoder, prompt, _render(encoder.tokenizer, messages, continue_final_message=True))
    ids = _like_prompt(encoder, prompt, _render(encoder.tokenizer, messages, add_generation_prompt=True))
    end = encoder.tokenizer.eos_token_id if encoder.tokenizer.eos_token == "</s>" else None
    return [token for token in ids if token != end]


def _render(tokenizer: Any, messages: list[dict[str, str]], **how: bool) -> list[int]:
    import jinja2

    try:
        ids: list[int] = tokenizer.apply_chat_template(
            messages, tokenize=True, return_dict=False, sanitize_control_tokens=True, **how
        )
    except jinja2.TemplateError as error:
        raise ValueError(f"the chat template refuses this conversation: {error}") from None
    except ValueError:  # its own words quote the text
        raise ValueError("the chat template does not keep this text in the assistant's turn") from None
    return ids


def _like_prompt(encoder: PromptEncoder, prompt: Prompt, ids: list[int]) -> list[int]:
    """With a BOS where the encoder's prompts have one; some templates leave it to the tokenizer."""
    bos = encoder.tokenizer.bos_token_id
    begins = bos is not None and encoder.prompt_ids(prompt)[:1] == [bos]
    return [bos, *ids] if begins and ids[:1] != [bos] else ids


def _string_turn(encoder: PromptEncoder, prompt: Prompt, text: str, turn: str) -> list[int]:
    if turn == "continue":
        return _encoded(encoder, prompt, text)
    assert encoder.template is not None
    header = encoder.template.rpartition("{raw_prompt}")[2].rstrip()
    tokenizer = encoder.tokenizer
    if tokenizer.eos_token == "</s>":
        return _encoded(encoder, prompt, text + header)
    again = tokenizer(header.lstrip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*_encoded(encoder, prompt, text), tokenizer.eos_token_id, *again]


def _encoded(encoder: PromptEncoder, prompt: Prompt, text: str) -> list[int]:
    row = encoder.encode(prompt, text)
    return [*row.prompt_ids, *row.response_ids[:-1]]  # a response ends with EOS; this one goes on


def _common(left: Sequence[int], right: Sequence[int]) -> int:
    """How many tokens both begin with."""
    limit = min(len(left), len(right))
    return next((place for place in range(limit) if left[place] != right[place]), limit)
