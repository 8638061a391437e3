"""From written responses and verdicts to ranked sets, one request after the other, with counts of both.

Everything comes as streams sorted by request, so a run of 50,000 requests (750,000 pairs) holds a few rows at a time.
"""

import json
from collections import Counter
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from statistics import mean, median
from typing import Any

from alignlab.data.rankings import FEWEST, HARMFUL, rankings
from alignlab.io.hashes import text_id
from alignlab.synthesis.drafts import CORRECTED, SAFE

Row = Mapping[str, Any]
PHRASES = ("affirmative_prefix", "correction_phrase")
"""Columns with the ids of a response's phrases."""
LENGTH_BIAS = 0.65
"""Share of pairs whose longer (or shorter) response is chosen, from which on length alone tells much of the ranking."""


@dataclass(frozen=True)
class RankedSet:
    """The responses of one request that are kept, best first."""

    request: Row
    """Its row in requests.jsonl."""
    responses: tuple[Row, ...]
    """Their rows in responses.jsonl."""

    @property
    def texts(self) -> list[str]:
        """The responses."""
        return [row["response"] for row in self.responses]

    def row(self) -> dict[str, Any]:
        """Its row in ranked.jsonl."""
        columns = ("rank", "role", "cut_tokens", "at_clause", "tokens", "correction_start", *PHRASES, "finish")
        shared = ("seed", "generator", "revision")
        return {
            "id": text_id(self.request["id"], *self.texts),
            "request_id": self.request["id"],
            "kind": self.request["kind"],
            "prompt": self.request["prompt"],
            "responses": self.texts,
            **{name: [row[name] for row in self.responses] for name in columns},
            **{name: self.responses[0][name] for name in shared},
        }

    def pairs(self, strategy: str, *, as_messages: bool) -> Iterator[dict[str, Any]]:
        """Its rows in pairs.jsonl, in TRL's columns: plain texts, or messages where some prompt is a conversation."""
        prompt = self.request["prompt"]
        if as_messages and isinstance(prompt, str):
            prompt = [{"role": "user", "content": prompt}]
        for part in rankings(strategy, len(self.responses), kind=self.request["kind"]):
            for better, worse in part.pairs():
                chosen, rejected = self.responses[better], self.responses[worse]
                texts = [row["response"] for row in (chosen, rejected)]
                said = [[{"role": "assistant", "content": text}] if as_messages else text for text in texts]
                yield {
                    "id": text_id(chosen["id"], rejected["id"]),
                    "prompt": prompt,
                    "chosen": said[0],
                    "rejected": said[1],
                    "request_id": self.request["id"],
                    "group": self.request["group"],
                    "kind": self.request["kind"],
                    "chosen_rank": chosen["rank"],
                    "rejected_rank": rejected["rank"],
                }


@dataclass
class SynthesisStats:
    """Counts of requests, responses and pairs, and lengths of the responses."""

    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> requests without a set."""
    dropped: Counter[str] = field(default_factory=Counter)
    """`corrected 2: not a correction` -> responses that the judge turned down, whatever became of their request."""
    sets: Counter[str] = field(default_factory=Counter)
    """Kind -> sets."""
    pairs: Counter[str] = field(default_factory=Counter)
    cut_at_limit: Counter[str] = field(default_factory=Counter)
    """Role -> responses that the generator's limit cut short."""
    longer_chosen: int = 0
    shorter_chosen: int = 0
    tokens: dict[str, dict[int, list[int]]] = field(default_factory=dict)
    """Kind -> rank -> tokens of each response."""

    def add(self, made: RankedSet, strategy: str) -> None:
        """Counts a set and its pairs."""
        kind = made.request["kind"]
        self.sets[kind] += 1
        by_rank = self.tokens.setdefault(kind, {})
        for row in made.responses:
            by_rank.setdefault(row["rank"], []).append(row["tokens"])
            self.cut_at_limit[row["role"]] += row["finish"] == "length"
        for part in rankings(strategy, len(made.responses), kind=kind):
            for better, worse in part.pairs():
                gap = made.responses[better]["tokens"] - made.responses[worse]["tokens"]
                self.pairs[kind] += 1
                self.longer_chosen += gap > 0
                self.shorter_chosen += gap < 0

    def lengths(self) -> dict[str, list[dict[str, Any]]]:
        """Kind -> one row a rank: responses, mean and median tokens."""
        return {
            kind: [
                {"rank": rank, "responses": len(found), "mean": round(mean(found), 2), "median": float(median(found))}
                for rank, found in sorted(by_rank.items())
            ]
            for kind, by_rank in sorted(self.tokens.items())
        }

    def length_bias(self) -> dict[str, Any]:
        """Shares of pairs whose longer or shorter response is chosen, and what to make of them."""
        total = self.pairs.total()
        longer, shorter = (count / total if total else 0.0 for count in (self.longer_chosen, self.shorter_chosen))
        note = "length says little of which response is chosen"
        if max(longer, shorter) >= LENGTH_BIAS:
            which = "longer" if longer > shorter else "shorter"
            note = f"the {which} response is chosen in {max(longer, shorter):.0%} of the pairs: length is a strong cue"
        return {"longer_chosen": round(longer, 4), "shorter_chosen": round(shorter, 4), "note": note}

    def record(self) -> dict[str, Any]:
        """For result.json and the card."""
        counters = {
            name: dict(sorted(getattr(self, name).items())) for name in ("sets", "pairs", "left_out", "dropped")
        }
        cut = {role: count for role, count in sorted(self.cut_at_limit.items()) if count}
        return {**counters, "cut_at_limit": cut, "lengths": self.lengths(), "length_bias": self.length_bias()}


def ranked_sets(
    requests: Iterable[Row],
    responses: Iterable[Row],
    verdicts: Iterable[Row],
    *,
    keep: str,
    stats: SynthesisStats,
) -> Iterator[RankedSet]:
    """The sets that can be trained on.

    Args:
        requests: rows of requests.jsonl, sorted by id.
        responses: rows of responses.jsonl, sorted by id; all of every request.
        verdicts: rows of verdicts.jsonl, sorted by id; empty where nothing was judged.
        keep: what becomes of a request with a response that the judge turned down: `requests` leaves it out, `ranks`
            leaves that response out; `none` where nothing was judged.
        stats: counts what is left out and dropped.
    """
    judged = _Judged(verdicts)
    seen: set[str] = set()
    by_request = groupby(responses, key=lambda row: row["request_id"])
    for request, (request_id, rows) in zip(requests, by_request, strict=True):
        assert request["id"] == request_id, "both files are sorted by the request's id"
        found = sorted(rows, key=lambda row: int(row["rank"]))
        kept = [row for row in found if judged.keeps(row, stats)]
        reason = _unusable(request, found, kept, keep, judged.unknown)
        texts = text_id(json.dumps(request["prompt"]), *(row["response"] for row in kept))
        reason = reason or ("made the same set as another" if texts in seen else None)
        seen.add(texts)
        if reason:
            stats.left_out[reason] += 1
        else:
            yield RankedSet(request, tuple(kept))


class _Judged:
    """Verdicts, read in step with their responses."""

    def __init__(self, verdicts: Iterable[Row]) -> None:
        self.unknown: set[str] = set()
        """Ids of responses that the judge gave no verdict on."""
        self._verdicts = iter(verdicts)
        self._next = next(self._verdicts, None)

    def keeps(self, row: Row, stats: SynthesisStats) -> bool:
        """Whether a response is kept: it was not judged, or found to be what it should be."""
        if self._next is None or self._next["id"] != row["id"]:
            return True
        verdict, self._next = self._next, next(self._verdicts, None)
        if verdict["corrected"]:
            return True
        if verdict["corrected"] is None:
            self.unknown.add(row["id"])
        what = "no verdict" if verdict["corrected"] is None else "not a correction"
        stats.dropped[f"{row['role']} {row['rank']}: {what}"] += 1
        return False


def _unusable(request: Row, found: list[Row], kept: list[Row], keep: str, unknown: Container[str]) -> str | None:
    """Why a request gives no set, else None.

    Args:
        request: of the responses.
        found: all of them.
        kept: those that the judge passed.
        keep: as for `sets`.
        unknown: ids of those without a verdict.
    """
    if any(not row["response"].strip() for row in found):
        return "a response is empty"
    if len({row["response"] for row in found}) < len(found):
        return "two responses are equal"
    if len(kept) == len(found):
        return None
    lost = [row for row in found if row not in kept]
    no_verdict = all(row["id"] in unknown for row in lost)
    if keep == "requests":
        return "the judge gave no verdict on a response" if no_verdict else "the judge turned a response down"
    has_best = kept[0]["role"] == found[0]["role"] if kept else False
    is_short = len(kept) < FEWEST or not any(row["role"] == CORRECTED for row in kept)
    if request["kind"] == HARMFUL and not has_best:
        if found[0]["id"] in unknown:
            return f"the judge gave no verdict on the {SAFE} response"
        return f"the judge turned the {SAFE} response down"
    if not is_short:
        return None
    return "the judge gave no verdict on any correction" if no_verdict else "the judge turned every correction down"
