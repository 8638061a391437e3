"""The card of a synthesised data set as a page, with some of its sets, folded."""

import hashlib
import heapq
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from alignlab.pages import Column, Folded, Link, Section, Table, facts, prompt_text, write_report
from alignlab.pages.parts import number
from alignlab.synthesis.card import LENGTHS, about, count_rows, warning

MOST_SETS = 100
"""Sets of a page."""
FILES = ("README.md", "ranked.jsonl", "pairs.jsonl", "responses.jsonl", "result.json")


def write_page(
    folder: Path,
    *,
    kind: str,
    settings: Mapping[str, Any],
    counts: Mapping[str, Any],
    strategy: str,
    sets: Iterable[Mapping[str, Any]],
    links: Sequence[Link] = (),
) -> Path:
    """Write index.html atomically and return its path.

    Args:
        folder: the run's.
        kind: dataset.kind of the requests.
        settings: what the set was made with.
        counts: what `SynthesisStats.record` says, and what came before it.
        strategy: which pairs the pair files hold.
        sets: rows of ranked.jsonl; at most MOST_SETS are shown, chosen by a hash of the id.
        links: to other pages.
    """
    shown = heapq.nsmallest(MOST_SETS, sets, key=lambda row: hashlib.sha256(str(row["id"]).encode()).digest())
    made = sum(counts["sets"].values())
    lengths = [
        Table(
            LENGTHS, [[_length(row, name) for name in LENGTHS] for row in rows], f"lengths in tokens, {name} requests"
        )
        for name, rows in counts["lengths"].items()
    ]
    note = f"Pairs: {strategy}. Length: {counts['length_bias']['note']}."
    return write_report(
        folder / "index.html",
        [
            Section("Sets", texts=about(kind).split("\n\n")),
            Section("Counts", texts=[note], tables=[_counts(counts), *lengths]),
            Section("Settings", facts=facts(_dotted(settings))),
            Section(f"{len(shown)} of {made} sets", texts=[_CHOSEN], folded=[_folded(row) for row in shown]),
        ],
        title="Synthesised course corrections",
        warnings=[" ".join(warning(kind))],
        links=[*links, *(Link(name, name) for name in FILES if name == "result.json" or (folder / name).exists())],
        private=kind != "toy",
    )


_CHOSEN = "Chosen by a hash of their ids. Every text is folded; open only what you want to read."


def _length(row: Mapping[str, Any], name: str) -> object:
    """A count as it is, a mean or median of tokens to one decimal."""
    return number(row[name], 1) if name in ("mean", "median") else row[name]


def _counts(counts: Mapping[str, Any]) -> Table:
    return Table([Column("counted", False), "number"], count_rows(counts))


def _dotted(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, object]]:
    for key, value in settings.items():
        if isinstance(value, Mapping):
            yield from _dotted(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", _as_given(value)


def _as_given(value: object) -> object:
    """A setting as a command would say it: 0.0005 is no mean."""
    match value:
        case None:
            return "null"
        case float():
            return str(value)
        case list() | tuple():
            return [_as_given(one) for one in value]
        case _:
            return value


def _folded(row: Mapping[str, Any]) -> Folded:
    names = (f"{rank}, {role}" for rank, role in zip(row["rank"], row["role"], strict=True))
    texts = [("request", prompt_text(row["prompt"])), *zip(names, row["responses"], strict=True)]
    return Folded(f"{row['kind']} request {row['id']}: {len(row['responses'])} responses, best first", texts)
