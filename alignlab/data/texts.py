"""When a text says nothing, and when two texts say the same."""

import re
import unicodedata

_ENDS = ".?!,;:\u2026\u3002\u061f\u00bf\u00a1"
"""Punctuation that begins or ends a sentence; NFKC turns full-width forms into these."""
_QUOTES = re.compile("['\"`\u00b4\u2018-\u201f\u2039\u203a\u00ab\u00bb\u2032\u2033]")
_CONTROL = "\u0000-\u0008\u000e-\u001b\u007f-\u0084\u0086-\u009f"
_ZERO_WIDTH = (
    "\u00ad\u034f\u061c\u115f\u1160\u17b4\u17b5\u180b-\u180f\u200b-\u200f\u202a-\u202e\u2060-\u206f\u2800\u3164"
    "\ufe00-\ufe0f\ufeff\uffa0\ufff0-\ufffb\U0001bca0-\U0001bca3\U0001d173-\U0001d17a\U000e0000-\U000e0fff"
)
"""Joiners, marks of direction, fillers, variation selectors, tags."""
_UNSEEN = re.compile(f"[{_CONTROL}{_ZERO_WIDTH}]")
_LINE_ENDS = re.compile("\r\n?|[\u0085\u2028\u2029]")
_SPACES = re.compile(r"[^\S\x09-\x0d ]")
"""White space beside ASCII's: no-break, en, em, thin, ideographic and others."""
_SMALL = re.compile(
    "[\u00aa\u00b2\u00b3\u00b9\u00ba\u00bc-\u00be\u02b0-\u02b8\u02e0-\u02e4\u1d2c-\u1d6a\u1d78\u1d9b-\u1dbf\u2070-\u209f"
    "\u2150-\u215f\u2189]"
)
"""Exponents, indices and fractions. NFKC makes ordinary digits of them, which say something else: 2\u00b2 is not 22."""
DIFFERENCE = "Unicode form, Unicode spaces or invisible characters"
"""What `canonical` leaves out of a text, in words."""


def is_blank(text: str) -> bool:
    """Whether a text holds nothing to see: no character at all, or blanks and invisible characters alone."""
    return not canonical(text)


def blank_text(text: str) -> str:
    """What a text that `is_blank` holds, in words."""
    bare = text.strip("\t\n\v\f\r ")
    kinds = {
        "zero-width characters": f"[{_ZERO_WIDTH}]",
        "control characters": f"[{_CONTROL}]",
        "Unicode spaces": f"{_SPACES.pattern}|{_LINE_ENDS.pattern}",
    }
    held = [name for name, pattern in kinds.items() if re.search(pattern, bare)]
    return f"holds nothing but {' and '.join(held)}, which say nothing" if held else "is empty"


def canonical(text: str) -> str:
    """The text with ASCII spaces, in `folded` form, without the blanks around it."""
    return folded(text).strip()


def folded(text: str) -> str:
    """The text in one Unicode form, without invisible characters, and with ASCII blanks for other white space.

    Full-width letters, ligatures and the like become ordinary ones; exponents, indices and fractions stay.
    """
    if text.isascii():
        return text if text.replace("\n", " ").isprintable() else _LINE_ENDS.sub("\n", _UNSEEN.sub("", text))
    text = _SPACES.sub(" ", _LINE_ENDS.sub("\n", _UNSEEN.sub("", text)))
    small = _SMALL.findall(text)
    ordinary = (unicodedata.normalize("NFKC", part) for part in _SMALL.split(text))
    folded_text = next(ordinary) + "".join(char + part for char, part in zip(small, ordinary, strict=True))
    return _SPACES.sub(" ", folded_text)


def normalised(text: str) -> str:
    """The text without what makes no other request.

    That is letter case, spacing, Unicode form, quotes and apostrophes, invisible characters, and the punctuation that a
    request begins or ends with.
    """
    if not text.isascii():
        text = unicodedata.normalize("NFKC", _UNSEEN.sub("", _QUOTES.sub("", text)))
    bare = re.sub(r"\s+", " ", _QUOTES.sub("", text)).casefold().strip()
    return bare.strip(_ENDS + " ") or bare
