"""A tokenizer of pieces of words."""

import pytest

from support.made_up import ANSWER


@pytest.fixture(scope="session")
def pieces():
    """An encoder whose tokens are pieces of words, some of them halves of characters."""
    from alignlab.models.prompts import PromptEncoder
    from alignlab.models.scratch import bpe_tokenizer

    return PromptEncoder(bpe_tokenizer([ANSWER * 2], 330), "user: {raw_prompt} assistant:")
