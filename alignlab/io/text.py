"""Text for a terminal."""


def printable(text: str) -> str:
    """Text in which control and direction characters show as their code, so that none acts on a terminal."""
    return text if text.isprintable() else "".join(map(_shown, text))


def printable_lines(text: str) -> str:
    """The same for a text of several lines."""
    return "\n".join(map(printable, text.split("\n")))


def _shown(char: str) -> str:
    return char if char.isprintable() else f"\\x{ord(char):02x}"
