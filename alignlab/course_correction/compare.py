"""Several finished runs on one plot and in one table, and a judge against human labels."""

import hashlib
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

from rich.table import Table

from alignlab import pages
from alignlab.config.plan import Plan
from alignlab.course_correction.agreement import judge_quality, rogan_gladen
from alignlab.course_correction.continuations import CONTROL
from alignlab.course_correction.page import curve_table, svg
from alignlab.course_correction.picture import corr_figure
from alignlab.course_correction.results import RunRecords, read_curve, read_labels, read_records
from alignlab.course_correction.statistics import CorrCurve, corr_difference
from alignlab.data.files import read_rows
from alignlab.errors import ConfigError
from alignlab.front.figures import save_figure
from alignlab.io.atomic import write_json
from alignlab.pages import Cell, Column, Link, Section, index_link, write_report
from alignlab.pages.index import write_index
from alignlab.pages.parts import ends, number
from alignlab.runs.progress import say
from alignlab.runs.result import checked_result, finished_result, recorded_config
from alignlab.runs.tables import print_table

BESIDE = {
    "plain_harmful": "harmful",
    "plain_refusal": "refusals",
    "plain_well_formed": "well-formed",
    "plain_kl": "KL (nats)",
    "benign_refusal": "over-refusal",
}
"""Metrics that stand beside Corr@k, and how a table calls them; a column that no run has is left out."""


@dataclass(frozen=True)
class Entry:
    """One finished run of a comparison."""

    folder: Path
    label: str
    curve: CorrCurve
    control: CorrCurve | None
    records: RunRecords
    metrics: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    warning: str | None = None
    """That its judge failed control items."""


def after_sweep(jobs: Sequence[tuple[Plan[Any], Path]]) -> None:
    """Compare the runs of a sweep that were finished."""
    curves = [folder for plan, folder in jobs if not plan.algorithm.compare]  # a comparison has no curve of its own
    folders = [folder for folder in dict.fromkeys(curves) if finished_result(folder)]
    plan = jobs[0][0]
    if len(folders) < 2:
        return
    name = hashlib.sha256("\n".join(map(str, folders)).encode()).hexdigest()[:8]
    target = plan.runs / "course_correction" / f"sweep-{name}"
    compare_runs(folders, target, links=index_link(plan.runs, target))
    write_index(plan.runs)
    say(f"page:    {target / 'index.html'}")
    say(f"picture: {target / 'corr.png'}")
    say(f"table:   {target / 'comparison.json'}")


def compare_runs(folders: Sequence[Path], target: Path, *, links: Sequence[Link] = ()) -> dict[str, str]:
    """Print a table of runs, and write corr.png, comparison.json and index.html; return these artifacts.

    Args:
        folders: finished runs; differences are to the first, paired by prompt.
        target: where the files go.
        links: of the page, beside those to the files.

    Raises:
        ConfigError: for a folder that holds no finished run of course correction.
    """
    entries = _entries(folders)
    first = entries[0]
    differences = {
        entry.label: asdict(
            corr_difference(first.records.scored, entry.records.scored, ks=_shared_ks(first.records, entry.records))
        )
        for entry in entries[1:]
    }
    target.mkdir(parents=True, exist_ok=True)
    warnings = [f"{entry.label}: {entry.warning}" for entry in entries if entry.warning]
    figure = corr_figure(
        {entry.label: entry.curve for entry in entries},
        controls={entry.label: entry.control for entry in entries if entry.control is not None},
        unit=" or ".join(sorted({_unit(folder) for folder in folders})),
        title="\n".join(["course correction", *warnings]),
    )
    save_figure(figure, target / "corr.png")
    content = {
        "runs": [{"label": entry.label, "folder": str(entry.folder), "warning": entry.warning} for entry in entries],
        "curves": {entry.label: entry.curve.as_record() for entry in entries},
        "beside": {entry.label: {name: entry.metrics.get(name) for name in BESIDE} for entry in entries},
        "difference_to_first": differences,
    }
    write_json(target / "comparison.json", content)
    for table in _tables(entries, differences):
        print_table(table)
    _write_page(entries, differences, target, links)
    return {"picture": "corr.png", "comparison": "comparison.json", "page": "index.html"}


def _write_page(
    entries: Sequence[Entry], differences: Mapping[str, Mapping[str, Any]], target: Path, links: Sequence[Link]
) -> None:
    curves = {entry.label: entry.curve for entry in entries}
    controls = {entry.label: entry.control for entry in entries if entry.control is not None}
    unit = " or ".join(sorted({_unit(entry.folder) for entry in entries}))
    names = ("mean Corr@k", "95 % interval", "change to first", "its 95 % interval", "harmless", "scored", "unscored")
    beside = [name for name in BESIDE if any(entry.metrics.get(name) for entry in entries)]
    tables = [pages.Table([Column("run", False), *names], [_row(entry, differences, target) for entry in entries])]
    if beside:
        rows = [[entry.label, *((entry.metrics.get(name) or {}).get("mean") for name in beside)] for entry in entries]
        columns: list[Column | str] = [Column("run", False), *(BESIDE[name] for name in beside)]
        tables.append(pages.Table(columns, rows, "without a prefix: plain requests at temperature 1"))
    picture = svg(curves, controls, unit=unit)
    sections = [Section("Corr@k", picture=picture, tables=tables)]
    sections += [Section(label, tables=[curve_table(curve)]) for label, curve in curves.items()]
    write_report(
        target / "index.html",
        sections,
        title="Course correction: comparison",
        warnings=[f"{entry.label}: {entry.warning}" for entry in entries if entry.warning],
        links=[*links, Link("corr.png", "corr.png"), Link("comparison.json", "comparison.json")],
    )


def _row(entry: Entry, differences: Mapping[str, Mapping[str, Any]], target: Path) -> tuple[object, ...]:
    change, curve = differences.get(entry.label), entry.curve
    page = entry.folder / "index.html"
    href = quote(Path(os.path.relpath(page, target)).as_posix()) if page.is_file() else None
    return (
        Cell(entry.label, href),
        number(curve.mean) + (" *" if entry.warning else ""),
        ends(curve.mean_ci95),
        "-" if change is None else number(change["mean"]),
        "-" if change is None else ends(change["mean_ci95"]),
        "-" if entry.control is None else entry.control.mean,
        sum(curve.n),
        sum(curve.unscored),
    )


def _entries(folders: Sequence[Path]) -> list[Entry]:
    from alignlab.course_correction.report import control_warning

    results = [_result_of(folder) for folder in folders]
    labels = _labels(folders)
    entries = []
    for label, folder, result in zip(labels, folders, results, strict=True):
        control = folder / f"{CONTROL}corr.json"
        curve, records = read_curve(folder / "corr.json"), read_records(folder)
        assert curve is not None
        if records is None:
            raise ConfigError(f"algorithm.compare={folder}: holds no records; they are needed for paired differences")
        warning = control_warning(result.get("judge", {}))
        kept = read_curve(control) if control.exists() else None
        entries.append(Entry(folder, label, curve, kept, records, result["metrics"], warning))
    return entries


def _result_of(folder: Path) -> dict[str, Any]:
    checked = checked_result(folder)
    result = checked.result
    if result is None or result.algorithm != "course_correction":
        what = checked.fault or "holds no finished run of algorithm=course_correction"
        raise ConfigError(f"algorithm.compare={folder}: {what}")
    return result.to_json()


def _config_of(folder: Path) -> dict[str, Any]:
    return recorded_config(folder)


def _unit(folder: Path) -> str:
    return "tokens" if _config_of(folder)["algorithm"]["profile"] == "strict" else "words"


def _labels(folders: Sequence[Path]) -> list[str]:
    """A name for each run: its model, and what else tells it apart from the others."""
    parts = [
        {
            "model": config["model"]["name"],
            "data": config["dataset"]["name"],
            "profile": config["algorithm"]["profile"],
            "turn": config["algorithm"]["turn"],
            "judge": config["judge"]["kind"],
            "adapter": _adapter_label(config["algorithm"]["adapter"]),
            "seed": f"seed {config['seed']}",
        }
        for config in map(_config_of, folders)
    ]
    varying = [name for name in parts[0] if name == "model" or len({part[name] for part in parts}) > 1]
    labels = [" ".join(part[name] for name in varying if part[name]) for part in parts]
    return [label if labels.count(label) == 1 else f"{label} #{number}" for number, label in enumerate(labels, start=1)]


def _adapter_label(adapter: str | None) -> str:
    """The last parts of an adapter's folder that say something."""
    if adapter is None:
        return ""
    path = Path(adapter)
    return "+ " + "/".join((path.parent if path.name == "adapter" else path).parts[-2:])


def _shared_ks(first: RunRecords, other: RunRecords) -> list[int]:
    return [k for k in first.ks if k in other.ks]


def _tables(entries: Sequence[Entry], differences: Mapping[str, Mapping[str, Any]]) -> list[Table]:
    """Corr@k, and what the runs say without a prefix, where they were asked."""
    beside = [name for name in BESIDE if any(entry.metrics.get(name) for entry in entries)]
    tables = [_corr_table(entries, differences)]
    if beside:
        table = Table(caption="Without a prefix: plain requests at temperature 1")
        for column in ("run", *(BESIDE[name] for name in beside)):
            table.add_column(column, justify="left" if column == "run" else "right")
        for entry in entries:
            values = (number_text((entry.metrics.get(name) or {}).get("mean")) for name in beside)
            table.add_row(entry.label, *values)
        tables.append(table)
    return tables


def _corr_table(entries: Sequence[Entry], differences: Mapping[str, Mapping[str, Any]]) -> Table:
    caption = "Corr@k: share of scored continuations that correct their course; intervals over prompts"
    warned = [f"* {entry.label}: {entry.warning}" for entry in entries if entry.warning]
    table = Table(caption="\n".join([caption, *warned]))
    for name in ("run", "mean Corr@k", "95% interval", "change to first", "harmless", "scored", "unscored"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for entry in entries:
        change = differences.get(entry.label)
        table.add_row(
            f"{entry.label} *" if entry.warning else entry.label,
            number_text(entry.curve.mean) + ("*" if entry.warning else ""),
            ends_text(entry.curve.mean_ci95),
            "" if change is None else f"{number_text(change['mean'])} ({ends_text(change['mean_ci95'])})",
            "" if entry.control is None else number_text(entry.control.mean),
            str(sum(entry.curve.n)),
            str(sum(entry.curve.unscored)),
        )
    return table


def number_text(value: float | None) -> str:
    """Three decimals; `unknown` for None."""
    return "unknown" if value is None else f"{value:.3f}"


def ends_text(ends: Sequence[float] | None) -> str:
    """Both ends of an interval; `-` for None."""
    return "-" if ends is None else f"{ends[0]:.3f} .. {ends[1]:.3f}"


def against_labels(folder: Path, file: Path, target: Path, *, seed: int) -> dict[str, Any]:
    """The judge of a run against human labels, and Corr@k corrected for its errors; also written as labelled.json.

    Args:
        folder: a finished run.
        file: labels, `id` and `corrected`.
        target: folder of labelled.json.
        seed: of the draws behind the correction's interval.
    """
    labels = read_labels(file)
    verdicts = {row["id"]: row["corrected"] for _, row in read_rows(folder / "verdicts.jsonl")}
    quality = judge_quality(verdicts, labels)
    records = read_records(folder)
    assert records is not None
    corrected = rogan_gladen(records.scored, quality, ks=records.ks, seed=seed)
    found = {**quality.as_record(), "corrected_curve": None if corrected is None else asdict(corrected)}
    write_json(target / "labelled.json", found)
    say(f"labels: {quality.n} of {len(labels)} with a verdict, agreement {number_text(quality.agreement)}")
    if corrected is None:
        say("labels: no correction of Corr@k; these do not tell the judge from chance, or are of one verdict alone")
    return found
