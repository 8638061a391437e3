"""What course correction shows: corr.json, a picture and a page of one run, and several runs on one plot."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from rich.table import Table

from alignlab.config.plan import Plan
from alignlab.config.schema import CourseCorrectionConfig, RunConfig
from alignlab.course_correction.agreement import judge_quality, rogan_gladen
from alignlab.course_correction.page import write_page
from alignlab.course_correction.picture import draw_corr
from alignlab.course_correction.results import (
    CONTROL,
    RunRecords,
    corr_record,
    read_curve,
    read_labels,
    read_records,
    transcripts,
)
from alignlab.course_correction.statistics import CorrCurve, paired_difference
from alignlab.data.files import read_rows
from alignlab.errors import ConfigError
from alignlab.io.atomic import write_json
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import console, say
from alignlab.runs.result import Outcome, finished_result


def report(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Writes corr.json, corr.png and the page of a run whose records are whole; fills in its metrics."""
    algorithm = config.algorithm
    assert isinstance(algorithm, CourseCorrectionConfig)
    curves: dict[str, CorrCurve] = {}
    for name in ("", CONTROL):
        records = read_records(run.path, control=bool(name))
        if records is None:
            continue
        record = corr_record(records, ks=algorithm.k, seed=config.seed)
        write_json(run.path / f"{name}corr.json", record)
        curves[name] = CorrCurve.from_record(record)
        outcome.metrics |= _metrics(curves[name], name, with_k=not name)
        outcome.artifacts |= {f"{name}corr": f"{name}corr.json", f"{name}verdicts": f"{name}verdicts.jsonl"}
        outcome.artifacts |= {f"{name}generations": f"{name}generations.jsonl"}
    label = config.model.name
    controls = {label: curves[CONTROL]} if CONTROL in curves else None
    unit = unit_of(algorithm.profile)
    title = f"{config.dataset.name}, {algorithm.profile} profile, judge {config.judge.kind}"
    draw_corr({label: curves[""]}, run.path / "corr.png", controls=controls, unit=unit, title=title)
    facts = {
        "model": config.model.name,
        "adapter": algorithm.adapter or "none",
        "data": config.dataset.name,
        "profile": algorithm.profile,
        "judge": config.judge.kind,
        "samples per prefix": config.generator.samples,
        "temperature, top-p": f"{config.generator.temperature:g}, {config.generator.top_p:g}",
        "prefixes": outcome.extra.get("prefixes"),
        "known cases": _known_cases(outcome.extra.get("judge", {})),
    }
    write_page(
        run.path / "index.html",
        title=f"Course correction of {label}",
        curves={label: curves[""]},
        controls=controls,
        transcripts=list(transcripts(run.path)),
        facts=facts,
        unit=unit,
    )
    outcome.artifacts |= {"picture": "corr.png", "page": "index.html"}


def unit_of(profile: str) -> str:
    """What k counts."""
    return "tokens" if profile == "strict" else "words"


def _known_cases(judged: Mapping[str, Any]) -> str:
    cases = judged.get("known_cases", [])
    right = sum(case["got"] == case["wanted"] for case in cases)
    return f"{right} of {len(cases)} right"


def _metrics(curve: CorrCurve, name: str, *, with_k: bool) -> dict[str, dict[str, Any]]:
    mean = _interval(curve.mean, curve.mean_ci95, sum(curve.n), sum(curve.unscored))
    metrics = {f"{name}corr_mean": mean}
    if with_k:
        for place, k in enumerate(curve.k):
            metrics[f"corr@{k}"] = _interval(
                curve.corr[place], curve.ci95[place], curve.n[place], curve.unscored[place]
            )
    return metrics


def _interval(mean: float | None, ends: tuple[float, float] | None, n: int, missing: int) -> dict[str, Any]:
    record: dict[str, Any] = {"mean": mean, "ci95": None if ends is None else list(ends), "n": n}
    return {**record, "missing": missing} if missing else record


def compare(config: RunConfig, run: RunFolder, outcome: Outcome) -> None:
    """Draws finished runs on one plot, and says how each differs from the first on the prompts that both have."""
    algorithm = config.algorithm
    assert isinstance(algorithm, CourseCorrectionConfig)
    outcome.artifacts |= present([Path(folder) for folder in algorithm.compare], run.path, seed=config.seed)
    if algorithm.labels is not None:
        (folder,) = algorithm.compare
        outcome.extra["labels"] = _against_labels(Path(folder), Path(algorithm.labels), run.path, config.seed)
        outcome.artifacts["labelled"] = "labelled.json"


def after_sweep(jobs: Sequence[tuple[Plan[Any], Path]]) -> None:
    """One plot of a sweep's runs, of those that were finished."""
    folders = [folder for folder in dict.fromkeys(folder for _, folder in jobs) if finished_result(folder)]
    config = jobs[0][0].config
    if len(folders) < 2:
        return
    name = hashlib.sha256("\n".join(map(str, folders)).encode()).hexdigest()[:8]
    target = Path(config.paths.runs) / "course_correction" / f"sweep-{name}"
    present(folders, target, seed=config.seed)
    say(f"picture: {target / 'corr.png'}")
    say(f"table:   {target / 'comparison.json'}")


def present(folders: Sequence[Path], target: Path, *, seed: int) -> dict[str, str]:
    """Prints a table of runs, and writes corr.png and comparison.json into `target`; returns these artifacts.

    Raises:
        ConfigError: for a folder that holds no finished run of course correction.
    """
    results = [_result_of(folder) for folder in folders]
    labels = _labels(folders, results)
    curves = {label: read_curve(folder / "corr.json") for label, folder in zip(labels, folders, strict=True)}
    controls = {
        label: read_curve(folder / f"{CONTROL}corr.json")
        for label, folder in zip(labels, folders, strict=True)
        if (folder / f"{CONTROL}corr.json").exists()
    }
    records = [read_records(folder) for folder in folders]
    first = records[0]
    differences = {
        label: asdict(paired_difference(first.scored, other.scored, ks=_shared_ks(first, other), seed=seed))
        for label, other in zip(labels[1:], records[1:], strict=True)
        if first is not None and other is not None
    }
    target.mkdir(parents=True, exist_ok=True)
    profiles = {json.loads((folder / "config.json").read_text())["algorithm"]["profile"] for folder in folders}
    unit = " or ".join(sorted(unit_of(profile) for profile in profiles))
    draw_corr(curves, target / "corr.png", controls=controls, unit=unit, title="course correction")
    runs = [{"label": label, "folder": str(folder)} for label, folder in zip(labels, folders, strict=True)]
    content = {"runs": runs, "curves": {label: curve.as_record() for label, curve in curves.items()}}
    write_json(target / "comparison.json", {**content, "difference_to_first": differences})
    console.print(_table(curves, controls, differences))
    return {"picture": "corr.png", "comparison": "comparison.json"}


def _result_of(folder: Path) -> dict[str, Any]:
    result = finished_result(folder)
    if result is None or result.algorithm != "course_correction":
        raise ConfigError(f"algorithm.compare={folder}: holds no finished run of algorithm=course_correction")
    return result.to_json()


def _labels(folders: Sequence[Path], results: Sequence[Mapping[str, Any]]) -> list[str]:
    """A name for each run: its model, and what else tells it apart from the others."""
    configs = [json.loads((folder / "config.json").read_text()) for folder in folders]
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
        for config in configs
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


def _table(
    curves: Mapping[str, CorrCurve], controls: Mapping[str, CorrCurve], differences: Mapping[str, Mapping[str, Any]]
) -> Table:
    table = Table(caption="Corr@k: share of scored continuations that correct their course; intervals over prompts")
    for name in ("run", "mean Corr@k", "95% interval", "change to first", "harmless", "scored", "unscored"):
        table.add_column(name, justify="left" if name == "run" else "right")
    for label, curve in curves.items():
        change = differences.get(label)
        control = controls.get(label)
        table.add_row(
            label,
            _number(curve.mean),
            _ends(curve.mean_ci95),
            "" if change is None else f"{_number(change['mean'])} ({_ends(change['mean_ci95'])})",
            "" if control is None else _number(control.mean),
            str(sum(curve.n)),
            str(sum(curve.unscored)),
        )
    return table


def _number(value: float | None) -> str:
    return "unknown" if value is None else f"{value:.3f}"


def _ends(ends: tuple[float, float] | None) -> str:
    return "-" if ends is None else f"{ends[0]:.3f} .. {ends[1]:.3f}"


def _against_labels(folder: Path, file: Path, target: Path, seed: int) -> dict[str, Any]:
    """The judge against human labels, and Corr@k corrected for its errors; also written as labelled.json."""
    labels = read_labels(file)
    verdicts = {row["id"]: row["corrected"] for _, row in read_rows(folder / "verdicts.jsonl")}
    quality = judge_quality(verdicts, labels)
    records = read_records(folder)
    assert records is not None
    corrected = rogan_gladen(records.scored, quality, ks=records.ks, seed=seed)
    found = {**quality.as_record(), "corrected_curve": None if corrected is None else asdict(corrected)}
    write_json(target / "labelled.json", found)
    say(f"labels: {quality.n} of {len(labels)} with a verdict, agreement {_number(quality.agreement)}")
    if corrected is None:
        say("labels: no correction of Corr@k; the judge is not told apart from chance by them")
    return found
