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
    facts: Mapping[str, object],
    controls: Mapping[str, CorrCurve] | None = None,
    unit: str = "tokens",
) -> Path:
    """Writes the page atomically and returns its path.

    Args:
        path: the file.
        title: its heading.
        curves: label -> Corr@k.
        transcripts: judged continuations; at most MOST_TRANSCRIPTS are shown, chosen by a hash of the id.
        facts: what was run: name -> value.
        controls: label -> Corr@k on harmless prefixes.
        unit: what k counts.
    """
    shown = sorted(transcripts, key=lambda item: hashlib.sha256(item.id.encode()).digest())[:MOST_TRANSCRIPTS]
    controlled = {f"{label}: harmless prefixes": curve for label, curve in (controls or {}).items()}
    text = _TEMPLATE.get_template("page.html.j2").render(
        title=visible(title),
        facts=[(visible(name), visible(value)) for name, value in facts.items()],
        picture=_svg(curves, controls, unit),
        curves=[(visible(label), _rows(curve)) for label, curve in {**curves, **controlled}.items()],
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


def _entry(item: Transcript) -> dict[str, object]:
    verdict = {True: "corrected", False: "not corrected", None: "unscored"}[item.corrected]
    mark = {True: "yes", False: "no", None: "unknown"}[item.corrected]
    texts = {name: visible(getattr(item, name)) for name in ("id", "request", "prefix", "continuation", "reason")}
    return {**texts, "k": item.k, "verdict": verdict, "mark": mark}


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _interval(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} .. {ends[1]:.3f}"
