"""Splits by prompt, through a hash: no prompt in two splits, whatever the order of the rows."""

import hashlib
import re
import unicodedata

from alignlab.data.records import Prompt


def split_of(prompt: Prompt, test_share: float, *, salt: str = "") -> str:
    """`test` for about test_share of all prompts, else `train`.

    Another salt gives another split. Prompts that differ only in letter case, spacing or Unicode form fall into the
    same split. Of a conversation the first request decides, because sets such as HH-RLHF hold one conversation cut at
    several points.
    """
    opening = prompt if isinstance(prompt, str) else next(turn.content for turn in prompt if turn.role == "user")
    digest = hashlib.sha256((salt + normalised(opening)).encode("utf-8", "surrogatepass")).digest()
    return "test" if int.from_bytes(digest[:8], "big") / 2**64 < test_share else "train"


def normalised(text: str) -> str:
    """The text without what makes no other request: letter case, spacing, Unicode form."""
    if not text.isascii():
        text = unicodedata.normalize("NFKC", text)
    return re.sub(r"\s+", " ", text).strip().casefold()
