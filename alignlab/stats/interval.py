"""A mean with its 95 % interval, and the shape that result.json holds it in."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

Bounds = tuple[float, float] | None
"""Both ends of a 95 % interval, or None where the data do not tell it."""


@dataclass(frozen=True)
class Interval:
    """A mean, its 95 % interval where it can be known, and the counts behind it."""

    mean: float | None
    """None where no value is known."""
    low: float | None
    high: float | None
    n: int
    """Number of known values."""
    missing: int = 0
    """Number of values that are unknown; they are in neither the mean nor n."""
    groups: int | None = None
    """Number of independent groups (prompts) of the known values; None in a record that does not say."""

    @property
    def half_width(self) -> float | None:
        """Half the interval's width, or None where the interval is not known."""
        return None if self.low is None or self.high is None else (self.high - self.low) / 2

    @property
    def bounds(self) -> Bounds:
        """Both ends, or None where the interval is not known."""
        return None if self.low is None or self.high is None else (self.low, self.high)

    @classmethod
    def of(
        cls, mean: float | None, bounds: Bounds, n: int, *, missing: int = 0, groups: int | None = None
    ) -> "Interval":
        """The same from both ends together, or None where the interval is not known.

        Args:
            mean: of the known values.
            bounds: both ends; None where they are unknown.
            n: of known values.
            missing: unknown values.
            groups: independent groups; None for n.
        """
        low, high = bounds or (None, None)
        return cls(mean, low, high, n, missing, groups)

    @classmethod
    def from_record(cls, record: object) -> "Interval":
        """Read `{"mean", "ci95": [low, high] | null, "n", "groups"?, "missing"?}` as a result.json holds it.

        Raises:
            ValueError: if the record has another shape; says what was found.
        """
        if not isinstance(record, Mapping) or "mean" not in record:
            raise ValueError(f'must be {{"mean", "ci95", "n", "groups"}}, is {record!r:.80}')
        ends = record.get("ci95") or (None, None)
        if not isinstance(ends, Sequence) or isinstance(ends, str) or len(ends) != 2:
            raise ValueError(f"ci95 must be [low, high] or null, is {ends!r:.80}")
        mean, low, high = (_finite_or_none(value) for value in (record["mean"], *ends))
        n, missing, groups = record.get("n") or 0, record.get("missing") or 0, record.get("groups")
        if not isinstance(n, int) or not isinstance(missing, int) or not isinstance(groups, int | None):
            raise ValueError(f"n, missing and groups must be whole numbers, are {n!r}, {missing!r} and {groups!r:.40}")
        bounds = None if low is None or high is None else (low, high)
        return cls.of(mean, bounds, n, missing=missing, groups=groups)

    def as_record(self) -> dict[str, object]:
        """The shape of result.json; `missing` is written only where something is missing."""
        bounds = None if self.bounds is None else list(self.bounds)
        record: dict[str, object] = {"mean": self.mean, "ci95": bounds, "n": self.n, "groups": self.groups}
        return {**record, "missing": self.missing} if self.missing else record


def _finite_or_none(value: object) -> float | None:
    """A number, or None where it is unknown; JSON written by Python may hold NaN."""
    if value is None:
        return None
    if not isinstance(value, int | float) or isinstance(value, bool):
        raise ValueError(f"must be a number or null, is {value!r:.80}")
    return float(value) if math.isfinite(value) else None
