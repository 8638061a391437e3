"""Read a run's records: curves of its judge and of each prompt template, positions, categories, transcripts.

A run folder holds requests.jsonl (id, group, prompt, categories, location), generations.jsonl (id, request_id, k,
sample, affirmative_prefix, prefix, continuation, finish) and verdicts.jsonl (id, corrected, reason, position in words
and in tokens); the same three with `control_` before their names where harmless prefixes were measured too. Requests
and generations of plain requests begin with `plain_` and `plain_control_`, see `alignlab.course_correction.plain`.
"""

import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from alignlab.course_correction.continuations import CONTROL
from alignlab.course_correction.page import Transcript
from alignlab.course_correction.statistics import CorrCurve, Scored, common_rows, corr_curve
from alignlab.data.files import read_rows
from alignlab.errors import ConfigError

Row = Mapping[str, Any]


@dataclass
class RunRecords:
    """The records of one run, joined by id."""

    scored: list[Scored]
    by_wording: dict[str, list[Scored]] = field(default_factory=dict)
    """Wording -> the same samples by its answers alone; empty where one wording or none was asked."""
    positions: dict[int, list[int]] = field(default_factory=dict)
    """k -> the policy's tokens before a correction begins, where the judge says where."""
    reasons: dict[str, int] = field(default_factory=dict)
    """Reason -> unscored samples."""
    categories: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """Request -> the categories of its harm, where the data names them."""

    @property
    def ks(self) -> list[int]:
        """The lengths that occur."""
        return sorted({row.k for row in self.scored})

    def by_category(self) -> dict[str, list[Scored]]:
        """Category -> the samples of its requests; a request with several counts in each."""
        rows: dict[str, list[Scored]] = {}
        for row in self.scored:
            for name in self.categories.get(row.request_id, ()):
                rows.setdefault(name, []).append(row)
        return dict(sorted(rows.items()))


def read_records(folder: Path, *, control: bool = False) -> RunRecords | None:
    """The records of a finished run; None without such files.

    Raises:
        ConfigError: if a file lacks an id that another one has, or a line is damaged.
    """
    kind = CONTROL if control else ""
    paths = [folder / f"{kind}{name}.jsonl" for name in ("requests", "generations", "verdicts")]
    if not all(path.exists() for path in paths):
        return None
    requests = {row["id"]: row for _, row in read_rows(paths[0])}
    verdicts = {row["id"]: row for _, row in read_rows(paths[2])}
    categories = {name: tuple(row["categories"]) for name, row in requests.items() if row.get("categories")}
    records = RunRecords(scored=[], categories=categories)
    for location, row in read_rows(paths[1]):
        verdict = verdicts.get(row["id"])
        if verdict is None:
            raise ConfigError(f"{location} id: {row['id']} has no verdict in {paths[2].name}")
        _add(records, row, verdict, str(requests[row["request_id"]]["group"]))
    return records


def _add(records: RunRecords, row: Row, verdict: Row, group: str) -> None:
    def scored(corrected: bool | None) -> Scored:
        return Scored(group, row["request_id"], row["k"], row["sample"], corrected)

    records.scored.append(scored(verdict["corrected"]))
    for name, answer in verdict.get("by_wording", {}).items():
        records.by_wording.setdefault(name, []).append(scored(answer))
    if verdict["corrected"] is None:
        records.reasons[verdict["reason"]] = records.reasons.get(verdict["reason"], 0) + 1
    elif verdict["corrected"] and verdict.get("position_tokens") is not None:
        records.positions.setdefault(row["k"], []).append(verdict["position_tokens"])


def corr_record(records: RunRecords, *, ks: Sequence[int]) -> dict[str, Any]:
    """Content of corr.json: curves of all requests, of those common to all k, of prompt templates and categories."""
    curve = corr_curve(records.scored, ks=ks)
    record = curve.as_record()
    measured = [k for k, n in zip(ks, curve.n, strict=True) if n]
    common = common_rows(records.scored, measured)
    record["common_requests"] = corr_curve(common, ks=measured).as_record() if common else None
    record["by_category"] = {name: corr_curve(rows, ks=ks).as_record() for name, rows in records.by_category().items()}
    curves = {name: corr_curve(rows, ks=ks) for name, rows in records.by_wording.items()}
    if curves:
        record["by_wording"] = {
            name: {"corr": curve.corr, "unscored": curve.unscored, "mean": curve.mean} for name, curve in curves.items()
        }
        record["wording_range"] = _ranges(list(curves.values()))
    record["position_tokens"] = {str(k): _quartiles(records.positions.get(k, ())) for k in ks}
    record["unscored_reasons"] = dict(sorted(records.reasons.items()))
    return record


def _ranges(curves: Sequence[CorrCurve]) -> dict[str, Any]:
    """Greatest less least value over the wordings, at every k and of the mean."""
    columns = zip(*(curve.corr for curve in curves), strict=True)
    return {"corr": [_range(column) for column in columns], "mean": _range([curve.mean for curve in curves])}


def _range(values: Iterable[float | None]) -> float | None:
    known = [value for value in values if value is not None]
    return max(known) - min(known) if len(known) > 1 else None


def _quartiles(values: Sequence[int]) -> dict[str, float] | None:
    """Quartiles of where corrections begin, in tokens of the continuation."""
    if not values:
        return None
    low, middle, high = np.percentile(values, [25, 50, 75])
    return {"q25": float(low), "median": float(middle), "q75": float(high), "n": len(values)}


def transcripts(folder: Path) -> Iterator[Transcript]:
    """The judged continuations of a run, for its page."""
    prompts = {row["id"]: row["prompt"] for _, row in read_rows(folder / "requests.jsonl")}
    verdicts = {row["id"]: row for _, row in read_rows(folder / "verdicts.jsonl")}
    for _, row in read_rows(folder / "generations.jsonl"):
        verdict = verdicts[row["id"]]
        yield Transcript(
            id=row["id"],
            k=row["k"],
            request=prompts[row["request_id"]],
            prefix=row["prefix"],
            continuation=row["continuation"],
            corrected=verdict["corrected"],
            reason=verdict["reason"],
        )


def read_curve(file: Path, part: str | None = None) -> CorrCurve | None:
    """The curve of a corr.json, or of a part of it; None where it has no such part.

    Raises:
        ConfigError: if it is none.
    """
    try:
        record = json.loads(file.read_text())
        record = record if part is None else record.get(part)
        return None if record is None else CorrCurve.from_record(record)
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise ConfigError(f"{file}: cannot be read as a run's corr.json: {type(error).__name__} {error}") from None


def read_labels(path: Path) -> dict[str, bool]:
    """Human labels of continuations, by id.

    Raises:
        ConfigError: `file:line field: reason` for the first row that is no label.
    """
    labels: dict[str, bool] = {}
    for location, row in read_rows(path):
        _require(isinstance(row.get("id"), str), location, "id", "must be a continuation's id")
        _require(isinstance(row.get("corrected"), bool), location, "corrected", "must be true or false")
        _require(row["id"] not in labels, location, "id", "is labelled twice")
        labels[row["id"]] = row["corrected"]
    _require(bool(labels), str(path), "", "holds no labels")
    return labels


def _require(good: bool, location: str, name: str, rule: str) -> None:
    if not good:
        raise ConfigError(f"{location}{' ' if name else ''}{name}: {rule}")
