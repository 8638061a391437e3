"""Ranges beside the fields that they hold for: `r: int = within("[1, 65536]")`."""

import math
import re
from dataclasses import dataclass, field, fields
from typing import Any

import omegaconf

from alignlab.errors import require

_INTERVAL = re.compile(r"([(\[])(\S+), (\S+)([)\]])")


@dataclass(frozen=True)
class Interval:
    """Numbers between two bounds; a square bracket counts the bound in."""

    text: str
    low: float
    high: float
    with_low: bool
    with_high: bool
    unit: str

    def holds(self, value: float) -> bool:
        """Whether a number lies in it; NaN lies in none."""
        above = value >= self.low if self.with_low else value > self.low
        below = value <= self.high if self.with_high else value < self.high
        return math.isfinite(value) and above and below

    @property
    def rule(self) -> str:
        """What must hold, in words."""
        if self.high < math.inf:
            return f"must be in {self.text}"
        return (
            f"must be a finite number {'>=' if self.with_low else '>'} {self.low:g}{self.unit and f', in {self.unit}'}"
        )


def within(text: str, unit: str = "") -> Any:
    """A field without a default whose numbers lie in an interval; null passes where typed so.

    Args:
        text: the interval, e.g. `(0, inf)`.
        unit: of the numbers, which a message of a field without an upper bound names.
    """
    found = _INTERVAL.fullmatch(text)
    assert found, text
    left, low, high, right = found.groups()
    interval = Interval(text, float(low), float(high), left == "[", right == "]", unit)
    return field(default=omegaconf.MISSING, metadata={"range": interval})


def check_ranges(section: str, node: Any) -> None:
    """Checks every field of a node that has a range.

    Args:
        section: what the fields' keys begin with, e.g. `peft`.
        node: the dataclass.

    Raises:
        ConfigError: `section.field=value: must be in ...`.
    """
    for item in fields(node):
        interval, value = item.metadata.get("range"), getattr(node, item.name)
        if interval is not None and value is not None:
            require(interval.holds(value), f"{section}.{item.name}", value, interval.rule)
