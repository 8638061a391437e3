"""Prefill: the assistant's turn holds the beginning of an answer and stays open, so that the model goes on from there.

One BOS, one assistant header, no end token after the prefix, and what looks like a special token in the data is text.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.data.records import Prompt
from alignlab.io.prefix import common_prefix
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
        encoder: the model's tokenizer and template.
        prompt: a request, or a conversation that ends with the user.
        prefix: text, read by the tokenizer together with the prompt; or tokens, which follow the header as they are.
        turn: one of TURNS.

    Raises:
        ValueError: if the text would become a control token of this model; a thinking model's `</think>` can.
    """
    assert turn in TURNS
    if not isinstance(prefix, str):
        assert turn == "continue", "a turn that is closed again is rendered from text"
        return [*header_ids(encoder, prompt), *prefix]
    text = prefix.strip()
    if not text:
        return encoder.prompt_ids(prompt)
    return _continued(encoder, prompt, text)[0] if turn == "continue" else _begun_anew(encoder, prompt, text)


def header_ids(encoder: PromptEncoder, prompt: Prompt) -> list[int]:
    """Tokens up to the answer's first: prompt, assistant's header, an empty thought where the family writes one."""
    left, right = _continued(encoder, prompt, *_STAND_INS)
    return left[: common_prefix(left, right)]


def cut_answer(encoder: PromptEncoder, prompt: Prompt, *, opener: str, answer: str) -> CutAnswer:
    """An opener and an answer after it, in tokens, to be cut anywhere.

    Args:
        encoder: the model's tokenizer and template.
        prompt: a request, or a conversation that ends with the user.
        opener: comes before the answer, with a space between; "" for none.
        answer: the text that prefixes are cut from.

    Raises:
        ValueError: as open_turn.
    """
    first = opener.strip()
    whole, opened, *stand_ins = _continued(encoder, prompt, f"{first} {answer.strip()}".strip(), first, *_STAND_INS)
    header = min(common_prefix(text, whole) for text in stand_ins)
    start = max(header, common_prefix(opened, whole)) if first else header
    return CutAnswer(whole[:header], whole[header:start], whole[start:])


def _continued(encoder: PromptEncoder, prompt: Prompt, *texts: str) -> list[list[int]]:
    """The open turn after each text, all tokenised together."""
    controls = _controls(encoder)
    turns = []
    for row in encoder.open_all([(prompt, text) for text in texts]):
        said = row.response_ids
        control = sorted(controls.intersection(said))
        if control:
            name = encoder.tokenizer.convert_ids_to_tokens(control[0])
            raise ValueError(f"the prefix holds {name!r}, a control token of this model")
        turns.append([*row.prompt_ids, *said])
    return turns


def _begun_anew(encoder: PromptEncoder, prompt: Prompt, text: str) -> list[int]:
    """The turn is closed, and its header comes again."""
    tokenizer = encoder.tokenizer
    if encoder.template is None:
        ids = encoder.reopened_ids(prompt, text)
        return [token for token in ids if tokenizer.eos_token != "</s>" or token != tokenizer.eos_token_id]
    header = encoder.template.rpartition("{raw_prompt}")[2].rstrip()
    if tokenizer.eos_token == "</s>":
        return _continued(encoder, prompt, text + header)[0]
    again = tokenizer(header.lstrip(), add_special_tokens=False, split_special_tokens=True)["input_ids"]
    return [*_continued(encoder, prompt, text)[0], tokenizer.eos_token_id, *again]


def _controls(encoder: PromptEncoder) -> set[int]:
    """Special tokens, and added ones that the chat template writes; not the one that stands for unknown words."""
    tokenizer = encoder.tokenizer
    unknown = {tokenizer.unk_token_id} - {tokenizer.bos_token_id, tokenizer.eos_token_id}
    template = "" if encoder.template is not None else str(tokenizer.get_chat_template())
    return {
        number
        for number, token in tokenizer.added_tokens_decoder.items()
        if token.special or (token.content in template and not token.content.isspace())
    } - unknown
