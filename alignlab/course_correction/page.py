"""The page of a run: the curves, their tables, and the transcripts, folded."""

import base64
import hashlib
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab import pages
from alignlab.course_correction.picture import HARMLESS, common_label, corr_figure
from alignlab.course_correction.statistics import CorrCurve, leaves_out
from alignlab.front.figures import draw_figure
from alignlab.pages import Column, Link, Table, prompt_text, visible
from alignlab.pages.parts import ends, interval, number

PLAIN_NAMES = {
    "plain_harmful": "harmful requests: share of answers that do harm",
    "plain_refusal": "harmful requests: share that refuses from the start",
    "plain_turns_back": "harmful requests: share that complies first and refuses later",
    "plain_well_formed": "harmful requests: share of well-formed answers",
    "plain_cut": "harmful requests: share cut at the length limit",
    "plain_kl": "harmful requests: KL to the reference, nats an answer",
    "benign_refusal": "harmless requests: share that refuses (over-refusal)",
    "benign_well_formed": "harmless requests: share of well-formed answers",
    "benign_cut": "harmless requests: share cut at the length limit",
    "benign_helpful": "harmless requests: true helpfulness",
}
"""Metric without a prefix (k=0) -> its row on the page."""
MOST_TRANSCRIPTS = 300
"""Transcripts of a page: more makes a file that a browser opens slowly and nobody reads."""


@dataclass(frozen=True)
class Transcript:
    """One judged continuation, with what came before it."""

    id: str
    k: int
    request: object
    """Text, or messages."""
    prefix: str
    continuation: str
    corrected: bool | None
    reason: str


def write_page(
    path: Path,
    *,
    title: str,
    curves: Mapping[str, CorrCurve],
    transcripts: Sequence[Transcript],
    facts: Mapping[str, object],
    controls: Mapping[str, CorrCurve] | None = None,
    common: Mapping[str, CorrCurve] | None = None,
    categories: Mapping[str, CorrCurve] | None = None,
    plain: Mapping[str, Mapping[str, Any]] | None = None,
    warning: str | None = None,
    unit: str = "tokens",
    links: Sequence[Link] = (),
) -> Path:
    """Write the page atomically and return its path.

    Args:
        path: the file.
        title: its heading.
        curves: label -> Corr@k.
        transcripts: judged continuations; at most MOST_TRANSCRIPTS are shown, chosen by a hash of the id.
        facts: what was run: name -> value.
        controls: label -> Corr@k on harmless prefixes.
        common: label -> Corr@k on the requests common to all k; shown where these are fewer than at some k.
        categories: category of harm -> Corr@k on its requests.
        plain: metrics without a prefix, by name; beside every Corr@k.
        warning: that the judge is not to be trusted; stands above the curves and at every value.
        unit: what k counts.
        links: to other pages and files.
    """
    shown = sorted(transcripts, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:MOST_TRANSCRIPTS]
    tables = dict(curves)
    tables |= {common_label(name, one): one for name, one in (common or {}).items() if leaves_out(one, curves[name])}
    tables |= {f"{label}: {HARMLESS}": curve for label, curve in (controls or {}).items()}
    mark = " *" if warning else ""
    return pages.write_page(
        path,
        "course_correction.html.j2",
        title=visible(title),
        links=links,
        private=True,
        facts=pages.facts(facts),
        picture=svg(curves, controls, common, unit=unit),
        curves=[(visible(label), curve_table(curve, mark)) for label, curve in tables.items()],
        categories=_category_table(categories or {}, mark),
        plain=_plain_table(plain or {}),
        warning=None if warning is None else visible(warning),
        transcripts=[_entry(item) for item in shown],
        shown=len(shown),
        total=len(transcripts),
    )


def svg(
    curves: Mapping[str, CorrCurve],
    controls: Mapping[str, CorrCurve] | None,
    common: Mapping[str, CorrCurve] | None = None,
    *,
    unit: str,
) -> str | None:
    """The picture as base64, for a page's img; None without curves.

    Args:
        curves: label -> Corr@k.
        controls: label -> Corr@k on harmless prefixes.
        common: label -> Corr@k on the requests common to all k.
        unit: what k counts.
    """
    if not curves:
        return None
    drawn = io.BytesIO()
    draw_figure(corr_figure(curves, controls=controls, common=common, unit=unit), drawn, kind="svg")
    return base64.b64encode(drawn.getvalue()).decode()


_MEASURED = ("95 % interval", "scored", "unscored", "requests", "distinct prompts")


def curve_table(curve: CorrCurve, mark: str = "") -> Table:
    """A row for each k, and their mean.

    Args:
        curve: Corr@k.
        mark: stands behind each value.
    """
    columns = zip(curve.k, curve.corr, curve.ci95, curve.n, curve.unscored, curve.requests, curve.groups, strict=True)
    rows = [(str(k), number(share) + mark, ends(bounds), *counts) for k, share, bounds, *counts in columns]
    return Table([Column("k", False), "Corr@k", *_MEASURED], [*rows, ("mean", *_mean_row(curve, mark))])


def _mean_row(curve: CorrCurve, mark: str) -> tuple[object, ...]:
    """The mean over k, with the counts of what it is of: the requests that every k has."""
    requests = min((count for count in curve.requests if count), default=0)
    counts = curve.mean_n, sum(curve.unscored), requests, curve.mean_groups
    return number(curve.mean) + mark, ends(curve.mean_ci95), *counts


def _category_table(categories: Mapping[str, CorrCurve], mark: str) -> Table:
    rows = [(name, *_mean_row(curve, mark)) for name, curve in categories.items()]
    return Table([Column("category", False), "mean Corr@k", *_MEASURED], rows)


def _plain_table(plain: Mapping[str, Mapping[str, Any]]) -> Table:
    rows = [(PLAIN_NAMES[name], *interval(one)) for name, one in plain.items() if name in PLAIN_NAMES]
    return Table([Column("metric", False), "mean", "95 % interval", "answers"], rows)


def _entry(item: Transcript) -> dict[str, object]:
    verdict = {True: "corrected", False: "not corrected", None: "unscored"}[item.corrected]
    mark = {True: "yes", False: "no", None: "unknown"}[item.corrected]
    texts = {name: visible(getattr(item, name)) for name in ("id", "prefix", "continuation", "reason")}
    return {**texts, "request": visible(prompt_text(item.request)), "k": item.k, "verdict": verdict, "mark": mark}
