"""Splits by prompt, through a hash: no prompt in two splits, whatever the order of the rows."""

import hashlib
import re


def split_of(prompt: str, test_share: float, *, salt: str = "") -> str:
    """`test` for about test_share of all prompts, else `train`.

    Another salt gives another split. Prompts that differ only in letter case or spacing fall into the same split.
    """
    key = re.sub(r"\s+", " ", prompt).strip().casefold()
    place = int.from_bytes(hashlib.sha256((salt + key).encode("utf-8", "surrogatepass")).digest()[:8], "big") / 2**64
    return "test" if place < test_share else "train"
