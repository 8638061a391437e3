"""Report of one run: corr.json, a picture, a page, and its metrics."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote

from alignlab.course_correction.continuations import CONTROL
from alignlab.course_correction.page import write_page
from alignlab.course_correction.picture import corr_figure
from alignlab.course_correction.results import corr_record, read_records, transcripts
from alignlab.course_correction.statistics import CorrCurve
from alignlab.front.figures import save_figure
from alignlab.io.atomic import write_json
from alignlab.pages import Cell, Link
from alignlab.runs.progress import say
from alignlab.stats import Interval

Metrics = dict[str, dict[str, Any]]


@dataclass(frozen=True)
class Measurement:
    """What was measured, and how: said on the page and in the title of the picture."""

    model: str
    adapter: str | None
    data: str
    profile: str
    turn: str
    ks: Sequence[int]
    judge: str
    samples: int
    temperature: float
    top_p: float

    @property
    def unit(self) -> str:
        """What k counts."""
        return unit_of(self.profile)


@dataclass(frozen=True)
class Reported:
    """What a report hands back for result.json."""

    metrics: Metrics
    artifacts: dict[str, str]


def report(
    folder: Path,
    measured: Measurement,
    *,
    plain: Metrics,
    judged: Mapping[str, Any],
    prefixes: Mapping[str, Any],
    links: Sequence[Link] = (),
) -> Reported:
    """Write corr.json, corr.png and index.html of a run whose records are complete.

    Args:
        folder: the run's.
        measured: what the records are of.
        plain: metrics without a prefix, which stand beside every Corr@k.
        judged: JudgeReport.record().
        prefixes: Prefixes.counts().
        links: of the page, beside those to the run's own files.
    """
    warning = control_warning(judged)
    found = Reported({}, {})
    curves: dict[str, CorrCurve] = {}
    common: CorrCurve | None = None
    categories: dict[str, CorrCurve] = {}
    for kind in ("", CONTROL):
        records = read_records(folder, control=bool(kind))
        if records is None:
            continue
        record = corr_record(records, ks=measured.ks)
        write_json(folder / f"{kind}corr.json", record)
        curves[kind] = CorrCurve.from_record(record)
        found.metrics.update(_metrics(curves[kind], kind, with_k=not kind))
        found.artifacts.update(_artifacts(kind))
        if not kind and record["common_requests"] is not None:
            common = CorrCurve.from_record(record["common_requests"])
            categories = {name: CorrCurve.from_record(one) for name, one in record["by_category"].items()}
    found.metrics.update(plain)
    controls = {measured.model: curves[CONTROL]} if CONTROL in curves else None
    named = {measured.model: curves[""]}
    alike = {measured.model: common} if common is not None else None
    figure = corr_figure(named, controls=controls, common=alike, unit=measured.unit, title=_title(measured, warning))
    save_figure(figure, folder / "corr.png")
    write_page(
        folder / "index.html",
        title=f"Course correction of {measured.model}",
        curves=named,
        controls=controls,
        common=alike,
        categories=categories,
        transcripts=list(transcripts(folder)),
        facts=_facts(measured, judged, prefixes, folder=folder),
        plain=plain,
        warning=warning,
        unit=measured.unit,
        links=[*links, *(Link(name, name) for name in ("corr.png", "corr.json", "result.json"))],
    )
    if warning:
        say(warning)  # last, so that it stands above the table of the metrics
    return Reported(found.metrics, {**found.artifacts, "picture": "corr.png", "page": "index.html"})


def _artifacts(kind: str) -> dict[str, str]:
    records = {f"{kind}{name}": f"{kind}{name}.jsonl" for name in ("verdicts", "generations")}
    return {**records, f"{kind}corr": f"{kind}corr.json"}


def _title(measured: Measurement, warning: str | None) -> str:
    title = f"{measured.data}, {measured.profile} profile, judge {measured.judge}"
    return f"{title}\n{warning}" if warning else title


def unit_of(profile: str) -> str:
    """What k counts."""
    return "tokens" if profile == "strict" else "words"


def control_warning(judged: Mapping[str, Any]) -> str | None:
    """What to say of a judge that failed a control item, None where it failed none."""
    wrong = [item for item in _control_items(judged) if item["got"] != item["wanted"]]
    if not wrong:
        return None
    names = ", ".join(dict.fromkeys(str(item["name"]) for item in wrong))
    return f"NOT TO BE TRUSTED: the judge failed {len(wrong)} of {len(_control_items(judged))} control items ({names})"


def _control_items(judged: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    found: Sequence[Mapping[str, Any]] = judged.get("control_items", judged.get("known_cases", ()))
    return found


def _facts(
    measured: Measurement, judged: Mapping[str, Any], prefixes: Mapping[str, Any], *, folder: Path
) -> dict[str, object]:
    """Name -> value in words, for the page."""
    items = _control_items(judged)
    right = sum(item["got"] == item["wanted"] for item in items)
    facts: dict[str, object] = {
        "model": measured.model,
        "adapter": _adapter(measured.adapter, folder),
        "data": measured.data,
        "profile": f"{measured.profile} (k counts {measured.unit})",
        "turn": measured.turn,
        "judge": measured.judge,
        "control items of the judge": f"{right} of {len(items)} right",
        "samples per prefix": str(measured.samples),
        "temperature, top-p": f"{measured.temperature:g}, {measured.top_p:g}",
        "prefixes": f"{prefixes['prefixes']} of {prefixes['requests']} requests",
    }
    reasons = {
        "too_short": "left out, response too short",
        "whole": "response prefilled whole",
        "too_long": "left out, no room in the context",
    }
    for name, text in reasons.items():
        counts = {k: count for k, count in prefixes[name].items() if count}
        if counts:
            facts[text] = ", ".join(f"{count} at k={k}" for k, count in counts.items())
    if prefixes["refused_by_template"]:
        facts["requests refused by the chat template"] = str(prefixes["refused_by_template"])
    return facts


def _adapter(adapter: str | None, folder: Path) -> Cell:
    """The adapter, with a link to the folder of its run where it lies on this machine."""
    if adapter is None:
        return Cell("none")
    run = Path(adapter).parent
    return Cell(adapter, quote(Path(os.path.relpath(run, folder)).as_posix()) + "/" if run.is_dir() else None)


def _metrics(curve: CorrCurve, kind: str, *, with_k: bool) -> Metrics:
    metrics = {f"{kind}corr_mean": _mean(curve)}
    if with_k:
        columns = zip(curve.k, curve.corr, curve.ci95, curve.n, curve.unscored, curve.groups, strict=True)
        metrics |= {
            f"corr@{k}": Interval.of(share, ends, n, missing=unscored, groups=groups).as_record()
            for k, share, ends, n, unscored, groups in columns
        }
    return metrics


def _mean(curve: CorrCurve) -> dict[str, Any]:
    missing, groups = sum(curve.unscored), curve.mean_groups
    return Interval.of(curve.mean, curve.mean_ci95, curve.mean_n, missing=missing, groups=groups).as_record()
