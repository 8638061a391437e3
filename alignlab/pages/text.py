"""Texts for a page: escaping is jinja's; what no escape covers is made visible here."""

import unicodedata


def visible(value: object) -> str:
    """Text in which control and direction characters show as their code, so that none of them acts on a reader."""
    text = str(value)
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    plain = char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    return char if plain else f"\\u{ord(char):04x}"
