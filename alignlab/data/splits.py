"""Splits by prompt, through a hash: no prompt in two splits, whatever the order of the rows."""

import hashlib

from alignlab.data.records import Prompt, prompt_text
from alignlab.data.texts import normalised

FIRST_REQUEST, WHOLE_PROMPT = "first_request", "prompt"
"""Values of dataset.split_by."""


def split_of(
    prompt: Prompt, test_share: float, *, dev_share: float = 0.0, by: str = FIRST_REQUEST, salt: str = ""
) -> str:
    """`test` for about test_share of all prompts, `dev` for about dev_share of them, else `train`.

    The prompts of `test` do not depend on dev_share. Prompts that differ only in what `normalised` leaves out fall
    into the same split.

    Args:
        prompt: a request or a conversation.
        test_share: 0..1.
        dev_share: 0..1, at most 1 - test_share.
        by: first_request: of a conversation the first request decides, because sets such as HH-RLHF hold one
            conversation cut at several points; prompt: all of its turns do.
        salt: another one gives another split.
    """
    digest = hashlib.sha256((salt + deciding_text(prompt, by)).encode("utf-8", "surrogatepass")).digest()
    position = int.from_bytes(digest[:8], "big") / 2**64
    if position < test_share:
        return "test"
    return "dev" if position < test_share + dev_share else "train"


def deciding_text(prompt: Prompt, by: str) -> str:
    """What the split of a prompt is a function of."""
    if by == WHOLE_PROMPT:
        return split_key(prompt)
    opening = prompt if isinstance(prompt, str) else next(turn.content for turn in prompt if turn.role == "user")
    return normalised(opening)


def split_key(prompt: Prompt) -> str:
    """Equal for prompts that no two splits may share."""
    if isinstance(prompt, str):
        return normalised(prompt)
    return prompt_text(tuple(type(turn)(turn.role, normalised(turn.content)) for turn in prompt))
