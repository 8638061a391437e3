"""Text for a terminal."""

from alignlab.errors import printable as printable_lines

__all__ = ["printable", "printable_lines"]


def printable(text: str) -> str:
    """Text of one line in which control and direction characters show as their code, line ends too."""
    return printable_lines(text).replace("\n", "\\n")
