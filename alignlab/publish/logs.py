"""Logs for `inspect view`: samples with their scores, and a judge's verdicts.

Imports inspect_ai, which is in the extra `publish`, when asked.
"""

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from alignlab import __version__
from alignlab.course_correction.page import Transcript
from alignlab.front.collect import RESULT
from alignlab.front.said import read_said
from alignlab.io.atomic import replacing
from alignlab.pages import prompt_text, visible
from alignlab.publish.policies import Policy
from alignlab.stats import Interval, share_interval


@dataclass(frozen=True)
class Sample:
    """One response, and what is known of it."""

    key: str
    """Of its prompt: samples of one prompt are inspect's epochs."""
    prompt: str
    response: str
    scores: Mapping[str, float | None]
    """None is unscored: inspect counts it, and no mean has it."""
    explanation: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Header:
    """What a log is of."""

    task: str
    model: str
    dataset: str
    folder: Path
    """Of the run that made it."""
    metrics: Mapping[str, Interval]
    metadata: Mapping[str, Any]


def hidden(text: str) -> str:
    """What stands for a text that nobody asked to see."""
    return f"[hidden: {len(text)} characters]"


def write_samples(folder: Path, policy: Policy, *, texts: bool) -> Path | None:
    """Write what a policy said; the log's path, None where the run has no samples.

    Args:
        folder: of the logs.
        policy: of a front.
        texts: whether prompts and responses are written; else only their lengths.
    """
    point, said = policy.point, read_said(policy.point.folder)
    if not said.responses:
        return None
    shown = visible if texts else hidden
    names = [name for name in said.scores if name in point.metrics]
    samples = [
        Sample(
            key=key,
            prompt=shown(said.texts[key]),
            response=shown(response),
            scores={visible(name): said.scores[name][index] for name in names},
        )
        for index, (key, response) in enumerate(zip(said.prompts, said.responses, strict=True))
    ]
    header = Header(
        task=f"samples of {policy.name}",
        model=point.model,
        dataset=point.dataset,
        folder=point.folder,
        metrics={visible(name): point.metrics[name] for name in names},
        metadata={"command": policy.command, "weights": dict(point.weights), "seed": point.seed},
    )
    return _write(folder / f"samples_{policy.slug}.eval", header, samples)


def write_verdicts(path: Path, run: Path, transcripts: Sequence[Transcript], *, model: str, texts: bool) -> Path:
    """Write a judge's verdicts on the continuations of a course-correction run; returns the log's path.

    Args:
        path: of the log.
        run: folder of the run.
        transcripts: of the run.
        model: its name.
        texts: whether texts are written; else only their lengths.
    """
    shown = visible if texts else hidden
    samples = [
        Sample(
            key=f"{one.k} {json.dumps(one.request, sort_keys=True)} {one.prefix}",
            prompt=shown(prompt_text(one.request)),
            response=shown(one.prefix + one.continuation),
            scores={"corrected": None if one.corrected is None else float(one.corrected)},
            explanation=shown(one.reason),
            metadata={"id": one.id, "k": one.k, "prefix": shown(one.prefix)},
        )
        for one in transcripts
    ]
    known = share_interval(
        (sample.scores["corrected"] for sample in samples), (prompt_text(one.request) for one in transcripts)
    )
    header = Header("verdicts: course corrected", model, "", run, {"corrected": known}, {"run": run.name})
    return _write(path, header, samples)


def _write(path: Path, header: Header, samples: Sequence[Sample]) -> Path:
    from inspect_ai.log import EvalConfig, EvalDataset, EvalLog, EvalResults, EvalSpec, write_eval_log

    ids = {key: number for number, key in enumerate(dict.fromkeys(sample.key for sample in samples), 1)}
    count: Counter[str] = Counter()
    logged = []
    for sample in samples:
        count[sample.key] += 1
        logged.append(_logged(sample, id=ids[sample.key], epoch=count[sample.key], model=header.model))
    spec = EvalSpec(
        created=datetime.fromtimestamp((header.folder / RESULT).stat().st_mtime, UTC).isoformat(timespec="seconds"),
        task=header.task,
        dataset=EvalDataset(name=header.dataset or None, samples=len(ids), sample_ids=list(ids.values())),
        model=header.model or "unknown",
        config=EvalConfig(epochs=max(count.values(), default=1)),
        packages={"alignlab": __version__},
        metadata={name: value for name, value in header.metadata.items() if value is not None},
    )
    results = EvalResults(
        total_samples=len(samples),
        completed_samples=len(samples),
        scores=[_result(name, one) for name, one in header.metrics.items()],
    )
    path.parent.mkdir(parents=True, exist_ok=True)
    with replacing(path) as unfinished:
        write_eval_log(EvalLog(status="success", eval=spec, results=results, samples=logged), unfinished, "eval")
    return path


def _logged(sample: Sample, *, id: int, epoch: int, model: str) -> Any:
    from inspect_ai.log import EvalSample
    from inspect_ai.model import ChatMessageAssistant, ChatMessageUser, ModelOutput
    from inspect_ai.scorer import Score

    scores = {
        name: Score(value=math.nan if value is None else value, explanation=sample.explanation)
        for name, value in sample.scores.items()
    }
    said = [ChatMessageUser(content=sample.prompt), ChatMessageAssistant(content=sample.response)]
    output = ModelOutput.from_content(model or "unknown", sample.response)
    return EvalSample(
        id=id,
        epoch=epoch,
        input=sample.prompt,
        target="",
        messages=said,
        output=output,
        scores=scores,
        metadata=dict(sample.metadata),
    )


def _result(name: str, interval: Interval) -> Any:
    """A mean with the ends of its interval, as inspect shows a scorer's metrics; what is unknown is left out."""
    from inspect_ai.log import EvalMetric, EvalScore

    low, high = interval.bounds or (None, None)
    known = {"mean": interval.mean, "ci95_low": low, "ci95_high": high}
    return EvalScore(
        name=name,
        scorer=name,
        scored_samples=interval.n,
        unscored_samples=interval.missing,
        metrics={name: EvalMetric(name=name, value=value) for name, value in known.items() if value is not None},
        metadata={"groups": interval.groups},
    )
