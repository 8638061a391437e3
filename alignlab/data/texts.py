"""When a text says nothing, and when two texts say the same."""

import re
import unicodedata

_ENDS = ".?!,;:\u2026\u3002\u061f\u00bf\u00a1"
"""Punctuation that begins or ends a sentence; NFKC turns full-width forms into these."""
_QUOTES = re.compile("['\"`\u00b4\u2018-\u201f\u2039\u203a\u00ab\u00bb\u2032\u2033]")
_UNSEEN = re.compile(
    "[\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180e\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff9-\ufffb\U000e0000-\U000e01ef]"
)
"""Zero-width and other invisible characters: joiners, marks of direction, fillers, variation selectors, tags."""


def is_blank(text: str) -> bool:
    """Whether a text holds nothing to see: no character at all, or blanks and invisible characters alone."""
    return not canonical(text)


def canonical(text: str) -> str:
    """The text in Unicode's composed form, without invisible characters and the blanks around it."""
    return text.strip() if text.isascii() else unicodedata.normalize("NFC", _UNSEEN.sub("", text)).strip()


def normalised(text: str) -> str:
    """The text without what makes no other request.

    That is letter case, spacing, Unicode form, quotes and apostrophes, invisible characters, and the punctuation that a
    request begins or ends with.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", _QUOTES.sub("", text)))
    bare = re.sub(r"\s+", " ", _QUOTES.sub("", text)).casefold().strip()
    return bare.strip(_ENDS + " ") or bare
