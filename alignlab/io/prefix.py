"""The common beginning of two sequences."""

from collections.abc import Sequence
from typing import Any


def common_prefix(left: Sequence[Any], right: Sequence[Any]) -> int:
    """Number of items, tokens or characters, that both begin with."""
    limit = min(len(left), len(right))
    if left[:limit] == right[:limit]:
        return limit
    return next((index for index in range(limit) if left[index] != right[index]), limit)
