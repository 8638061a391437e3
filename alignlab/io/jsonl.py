"""Read JSON Lines, whose lines end at a line feed alone: a text may hold Unicode's other line ends, e.g. U+2028."""

import json
from pathlib import Path
from typing import Any


def read_jsonl(file: Path) -> list[dict[str, Any]]:
    """The object of each line.

    Raises:
        OSError: if the file cannot be read.
        ValueError: for a line that is no JSON, or bytes that are not UTF-8.
    """
    return [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
