"""What the data check found: rows that cannot be used, each with its location, and how many of each kind."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from alignlab.data.texts import DIFFERENCE
from alignlab.errors import ConfigError

FAULTS = {
    "not_utf8": "bytes that are not UTF-8",
    "not_json": "torn or no JSON",
    "not_an_object": "no JSON object",
    "missing_column": "a column is missing",
    "null": "null",
    "wrong_type": "wrong type",
    "bad_value": "a value that has no meaning",
    "contradictory": "labels that contradict each other",
    "empty": "empty text",
    "identical": "identical responses",
    "too_long": "prompt too long",
    "duplicate": "repeated row",
    "overlap": "prompt in two splits",
}
"""Kind of fault -> what it is in words, in the order in which one row is looked at: the first that holds counts."""

SPELLINGS = f"prompts that differ from another one only in {DIFFERENCE}"
TEMPLATED = "prompts that hold a chat template's own tokens, which are read as text; give them without a template"
SAID = (SPELLINGS, TEMPLATED)
"""Names of notes that are also said."""

MOST_LINES = 20
"""Bad rows that are named one by one; of the rest the totals are given."""


class BadRow(Exception):  # not every bad row is an error
    """A row that cannot be used.

    Args:
        kind: one of FAULTS.
        column: the field at fault; "" where it is the whole line.
        reason: what holds and what must hold.
    """

    def __init__(self, kind: str, column: str, reason: str) -> None:
        assert kind in FAULTS
        super().__init__(reason)
        self.kind, self.column, self.reason = kind, column, reason


class LeftOut(Exception):
    """A row that its source is known to hold and that makes no preference; counted, and no fault.

    Args:
        why: what the rows are that are left out for this reason.
    """

    def __init__(self, why: str) -> None:
        super().__init__(why)
        self.why = why


@dataclass
class Report:
    """Counts over all rows of a source."""

    source: str
    """`dataset.path=FILE` or `dataset.hub=NAME`."""
    rows: int = 0
    """Rows that were read, bad ones too."""
    records: int = 0
    """Ranked rows, or requests, that they make."""
    bad: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: Counter[str] = field(default_factory=Counter)
    """What was mended or not known in rows that are used."""
    lines: list[str] = field(default_factory=list)
    """The first bad rows, `file:line field: reason`."""
    columns_read: dict[str, None] = field(default_factory=dict)
    columns_unread: dict[str, None] = field(default_factory=dict)
    """Columns that nothing is taken from, in the files' order; without those that the set is known to have."""
    stopped: bool = False
    """Whether reading ended early: so many rows were bad that the source is refused whatever follows."""

    def add(self, location: str, bad: BadRow) -> None:
        """Counts a bad row."""
        self.bad[bad.kind] += 1
        if len(self.lines) < MOST_LINES:
            self.lines.append(f"{location}{' ' if bad.column else ''}{bad.column}: {bad.reason}")

    def as_record(self) -> dict[str, Any]:
        """The shape of result.json's `data`."""
        return {
            "rows": self.rows,
            "records": self.records,
            "bad": dict(self.bad),
            "left_out": dict(self.left_out),
            "notes": dict(self.notes),
            "unread": list(self.columns_unread),
        }

    def notices(self) -> list[str]:
        """Lines for the person at the terminal: what was left out or is spelled in two ways, and columns not read."""
        lines = [f"{self.source}: left out {counts_text(self.bad)}"] if +self.bad else []
        lines += [f"{self.source}: {self.notes[name]:,} {name}" for name in SAID if self.notes[name]]
        if self.columns_unread:
            read, unread = ", ".join(self.columns_read), ", ".join(self.columns_unread)
            lines.append(f"{self.source}: reads {read}; does not read {unread}")
        return lines

    def check(self, *, drop: bool, max_share: float, drop_overlap: bool = True) -> None:
        """Refuses a source with bad rows.

        Args:
            drop: bad rows are left out, up to a share.
            max_share: the largest share of the rows that may be left out.
            drop_overlap: training rows whose prompt is held out are left out; they do not count in the share.

        Raises:
            ConfigError: the first bad rows, a line each, and the totals.
        """
        bad = sum(self.bad.values()) - self.bad["overlap"]
        if self.bad["overlap"] and not drop_overlap:
            raise self._refusal("dataset.overlap=drop leaves them out of the training")
        if bad and not drop:
            raise self._refusal("dataset.on_bad_row=drop leaves them out")
        if bad > max_share * self.rows:
            raise self._refusal(f"{bad / self.rows:.1%} is more than dataset.max_bad_share={max_share:g}")

    def _refusal(self, rule: str) -> ConfigError:
        total = sum(self.bad.values())
        if total == 1:
            return ConfigError(f"{self.lines[0]} ({rule.replace('them', 'it')})")
        more = [f"... and {total - len(self.lines):,} more"] if total > len(self.lines) else []
        rows = f"the first {self.rows:,} rows" if self.stopped else f"{self.rows:,} rows"
        totals = f"{self.source}: {total:,} of {rows} cannot be used ({counts_text(self.bad)}); {rule}"
        return ConfigError("\n".join([*self.lines, *more, totals]), most_lines=MOST_LINES + 2)


def counts_text(counts: Mapping[str, int]) -> str:
    """`3 empty text, 1 wrong type`, in the order of FAULTS; other names as they are."""
    order = {name: index for index, name in enumerate(FAULTS)}
    names = sorted((name for name in counts if counts[name]), key=lambda name: (order.get(name, len(order)), name))
    return ", ".join(f"{counts[name]:,} {FAULTS.get(name, name)}" for name in names)
