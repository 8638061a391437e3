"""Texts for a page: escaping is jinja's; what no escape covers is made visible here."""

import unicodedata
from collections.abc import Mapping


def visible(value: object) -> str:
    """Text in which control and direction characters show as their code, so that none of them acts on a reader."""
    text = str(value)
    return text if text.isascii() and text.isprintable() else "".join(map(_shown, text))


def _shown(char: str) -> str:
    plain = char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")
    return char if plain else f"\\u{ord(char):04x}"


def prompt_text(prompt: object) -> str:
    """A prompt of a JSON file as text: the request alone, or every message with its role."""
    if not isinstance(prompt, list):
        return str(prompt)
    turns = [turn if isinstance(turn, Mapping) else {"content": turn} for turn in prompt]
    if len(turns) == 1:
        return str(turns[0].get("content", ""))
    return "\n\n".join(f"{turn.get('role', '?')}: {turn.get('content', '')}" for turn in turns)
