"""One HTML file with the curves, their table, and the transcripts, folded. No script, nothing loaded from elsewhere."""

import base64
import hashlib
import io
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from alignlab.course_correction.picture import corr_figure
from alignlab.course_correction.statistics import CorrCurve
from alignlab.io.atomic import replacing

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
    request: str
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
    facts: Mapping[str, str],
    controls: Mapping[str, CorrCurve] | None = None,
    categories: Mapping[str, CorrCurve] | None = None,
    plain: Mapping[str, Mapping[str, Any]] | None = None,
    warning: str | None = None,
    unit: str = "tokens",
) -> Path:
    """Write the page atomically and return its path.

    Args:
        path: the file.
        title: its heading.
        curves: label -> Corr@k.
        transcripts: judged continuations; at most MOST_TRANSCRIPTS are shown, chosen by a hash of the id.
        facts: what was run: name -> value.
        controls: label -> Corr@k on harmless prefixes.
        categories: category of harm -> Corr@k on its requests.
        plain: metrics without a prefix, by name; beside every Corr@k.
        warning: that the judge is not to be trusted; stands above the curves and at every value.
        unit: what k counts.
    """
    shown = sorted(transcripts, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:MOST_TRANSCRIPTS]
    controlled = {f"{label}: harmless prefixes": curve for label, curve in (controls or {}).items()}
    text = _TEMPLATE.get_template("page.html.j2").render(
        title=visible(title),
        facts=[(visible(name), visible(value)) for name, value in facts.items()],
        picture=_svg(curves, controls, unit),
        curves=[(visible(label), _rows(curve)) for label, curve in {**curves, **controlled}.items()],
        categories=[(visible(name), _rows(curve)[-1]) for name, curve in (categories or {}).items()],
        plain=[(PLAIN_NAMES[name], _metric(one)) for name, one in (plain or {}).items() if name in PLAIN_NAMES],
        warning=None if warning is None else visible(warning),
        transcripts=[_entry(item) for item in shown],
        shown=len(shown),
        total=len(transcripts),
    )
    with replacing(path) as unfinished:
        unfinished.write_text(text, encoding="utf-8")
        unfinished.chmod(0o600)
    return path


def visible(value: object) -> str:
    """Text in which control and direction characters show as their code, so that none of them acts on a reader."""
    return "".join(char if _is_plain(char) else f"\\u{ord(char):04x}" for char in str(value))


def _is_plain(char: str) -> bool:
    return char in "\n\t" or unicodedata.category(char) not in ("Cc", "Cf", "Cs", "Co", "Cn")


_TEMPLATE = Environment(
    loader=PackageLoader("alignlab.course_correction", "."), autoescape=True, undefined=StrictUndefined
)


def _svg(curves: Mapping[str, CorrCurve], controls: Mapping[str, CorrCurve] | None, unit: str) -> str | None:
    if not curves:
        return None
    drawn = io.BytesIO()
    corr_figure(curves, controls=controls, unit=unit).savefig(drawn, format="svg", metadata={"Date": None})
    return base64.b64encode(drawn.getvalue()).decode()


def _rows(curve: CorrCurve) -> list[dict[str, Any]]:
    columns = zip(curve.k, curve.corr, curve.ci95, curve.n, curve.unscored, curve.requests, strict=True)
    most = max(curve.requests, default=0)
    rows = [*columns, ("mean", curve.mean, curve.mean_ci95, sum(curve.n), sum(curve.unscored), most)]
    return [
        {
            "k": k,
            "corr": _number(share),
            "interval": _interval(ends),
            "n": n,
            "unscored": unscored,
            "requests": requests,
        }
        for k, share, ends, n, unscored, requests in rows
    ]


def _metric(record: Mapping[str, Any]) -> dict[str, str]:
    ends = record.get("ci95")
    return {
        "mean": _number(record.get("mean")),
        "interval": _interval(None if ends is None else (ends[0], ends[1])),
        "n": str(record["n"]),
    }


def _entry(item: Transcript) -> dict[str, object]:
    verdict = {True: "corrected", False: "not corrected", None: "unscored"}[item.corrected]
    mark = {True: "yes", False: "no", None: "unknown"}[item.corrected]
    texts = {name: visible(getattr(item, name)) for name in ("id", "request", "prefix", "continuation", "reason")}
    return {**texts, "k": item.k, "verdict": verdict, "mark": mark}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} .. {ends[1]:.3f}"
