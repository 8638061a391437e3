"""Course correction: prefill a harmful beginning, sample what follows, judge it, say how often the model turns back.

Continuations depend on the model and the prefixes, not on the judge, so they lie in the cache: another judge, or
another run of the same, begins with judging.
"""

import dataclasses
import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignlab.config.plan import Plan
from alignlab.config.schema import CourseCorrectionConfig, DatasetConfig, RunConfig, ToyConfig
from alignlab.course_correction.prefixes import Prefix, Prefixes, build_prefixes
from alignlab.course_correction.report import compare, report
from alignlab.course_correction.results import CONTROL
from alignlab.data.files import read_rows
from alignlab.data.records import HarmRequest, prompt_text
from alignlab.data.requests import benign_requests, control_file, read_requests
from alignlab.engine.sampling.base import Continuation, PrefixRequest
from alignlab.errors import ConfigError, OnlyPlanned
from alignlab.front.metrics import mean_interval
from alignlab.io.atomic import copy_file, write_jsonl
from alignlab.io.records import Records
from alignlab.judges import Judge, JudgeItem, Verdict, load_judge
from alignlab.models.prompts import PromptEncoder
from alignlab.prerequisites.policy import Subject, subject
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[Any], run: RunFolder, outcome: Outcome) -> None:
    """Measures Corr@k of one model, or compares runs that did."""
    config = plan.config
    algorithm = config.algorithm
    assert isinstance(algorithm, CourseCorrectionConfig)
    if algorithm.compare:
        compare(config, run, outcome)
        return
    held_out = measured_part(config.dataset)
    requests = read_requests(held_out)
    control = control_file(Path(algorithm.control)) if algorithm.control else benign_requests(held_out)
    with run.stage("prerequisites"):
        judge = load_judge(config.judge, cache=Path(config.paths.cache), folder=run.path, device=config.hardware.device)
    with subject(config, algorithm.adapter) as measured:
        outcome.inputs |= {"model": measured.id, "revision": measured.revision}
        built = {"": _prefixes(config, measured, requests)}
        if control:
            built[CONTROL] = _prefixes(config, measured, control)
        if not built[""].kept:
            raise ConfigError(f"algorithm.k={algorithm.k}: no harmful response is longer ({built[''].counts()})")
        for name, prefixes in built.items():
            _say_left_out(name, prefixes)
            outcome.extra[f"{name}prefixes"] = prefixes.counts()
            with run.stage(f"{name}generation"):
                _generate(config, run.path, measured, prefixes.kept, name)
        if isinstance(config.dataset, ToyConfig):
            with run.stage("helpfulness"):
                outcome.metrics |= _helpfulness(config, measured, control)
        encoder = measured.encoder
    planned = judge.planned(
        [item for name, prefixes in built.items() for item in _items(run.path, prefixes.kept, name)]
    )
    if planned is not None:
        raise OnlyPlanned(planned)
    for name, prefixes in built.items():
        with run.stage(f"{name}judging"):
            _judge(run.path, judge, prefixes.kept, name, encoder)
    outcome.extra["judge"] = judge.report.record()
    report(config, run, outcome)


def measured_part(dataset: DatasetConfig) -> DatasetConfig:
    """The data that a model is measured on: not the part that it is trained on."""
    return dataclasses.replace(dataset, split="test") if dataset.split == "train" else dataset


def _prefixes(config: RunConfig, measured: Subject, requests: Sequence[HarmRequest]) -> Prefixes:
    algorithm = config.algorithm
    assert isinstance(algorithm, CourseCorrectionConfig)
    return build_prefixes(
        requests,
        measured.encoder,
        ks=algorithm.k,
        profile=algorithm.profile,
        turn=algorithm.turn,
        is_toy=isinstance(config.dataset, ToyConfig),
        room=measured.room,
    )


def _say_left_out(name: str, prefixes: Prefixes) -> None:
    what = "harmless beginnings" if name else "harmful beginnings"
    parts = {
        "responses are too short": prefixes.too_short.total(),
        "leave no room in the context": prefixes.too_long.total(),
        "requests the chat template refuses": prefixes.refused,
        "responses are put in whole": prefixes.whole.total(),
    }
    noted = "; ".join(f"{count} {text}" for text, count in parts.items() if count)
    say(f"{len(prefixes.kept)} {what}{f' ({noted})' if noted else ''}")


def _generate(config: RunConfig, folder: Path, measured: Subject, prefixes: Sequence[Prefix], name: str) -> None:
    """Fills requests.jsonl and generations.jsonl of the run folder; known continuations come from the cache."""
    requests = {prefix.request.id: prefix for prefix in prefixes}
    rows = [
        {
            "id": prefix.request.id,
            "group": prefix.request.group,
            "prompt": prompt_text(prefix.request.prompt),
            "opener": prefix.opener.id,
            "location": prefix.request.location,
        }
        for _, prefix in sorted(requests.items())
    ]
    write_jsonl(folder / f"{name}requests.jsonl", rows)
    samples = config.generator.samples
    made_for = _made_for(config, measured, prefixes)
    digest = hashlib.sha256(json.dumps(made_for, sort_keys=True).encode()).hexdigest()[:20]
    made = Path(config.paths.cache) / "continuations" / digest / "generations.jsonl"
    made.parent.mkdir(parents=True, exist_ok=True)
    expected = [prefix.sample_id(sample) for prefix in prefixes for sample in range(samples)]
    with FileLock(made.parent / ".lock"), Records(made, expected, made_for=made_for) as records:
        missing = set(records.missing())
        if len(missing) < len(expected):
            say(f"continuations: {len(expected) - len(missing)} of {len(expected)} are known from before")
        by_id = {prefix.id: prefix for prefix in prefixes}

        def note(request_id: str, sample: int, continuation: Continuation) -> None:
            prefix = by_id[request_id]
            records.add(_generation(prefix, sample, continuation))

        if missing:
            asked = [_asked(prefix, samples, missing) for prefix in prefixes]
            measured.generate(asked, config, note, label="continuations")
        records.finish()
        copy_file(made, folder / f"{name}generations.jsonl")


def _made_for(config: RunConfig, measured: Subject, prefixes: Sequence[Prefix]) -> dict[str, Any]:
    """What continuations depend on."""
    generator = config.generator
    texts = hashlib.sha256(json.dumps([[prefix.id, prefix.ids] for prefix in prefixes]).encode()).hexdigest()
    sampling = [generator.kind, generator.samples, generator.temperature, generator.top_p, generator.max_new_tokens]
    more = {name: getattr(generator, name, None) for name in ("prompt_format", "samples_per_call", "extra_body")}
    return {"subject": measured.id, "sampling": sampling, **more, "seed": config.seed, "prefixes": texts}


def _asked(prefix: Prefix, samples: int, missing: set[str]) -> PrefixRequest:
    known = frozenset(sample for sample in range(samples) if prefix.sample_id(sample) not in missing)
    return PrefixRequest(prefix.id, prefix.ids, samples, known)


def _generation(prefix: Prefix, sample: int, continuation: Continuation) -> dict[str, Any]:
    return {
        "id": prefix.sample_id(sample),
        "request_id": prefix.request.id,
        "k": prefix.k,
        "sample": sample,
        "prefix": prefix.text,
        "continuation": continuation.text,
        "finish": continuation.finish,
    }


def _judge(folder: Path, judge: Judge, prefixes: Sequence[Prefix], name: str, encoder: PromptEncoder) -> None:
    """Fills verdicts.jsonl of the run folder; only continuations without a verdict are judged."""
    everything = _items(folder, prefixes, name)
    texts = {item.id: item.continuation for item in everything}
    made_for = {"judge": judge.id, "wordings": list(judge.wordings)}
    with Records(folder / f"{name}verdicts.jsonl", list(texts), made_for=made_for) as records:
        missing = set(records.missing())
        items = [item for item in everything if item.id in missing]

        def note(verdict: Verdict) -> None:
            records.add(verdict.row() | _position(verdict, texts[verdict.id], encoder))

        if items:
            judge.verdicts(items, note)
        records.finish()


def _items(folder: Path, prefixes: Sequence[Prefix], name: str) -> list[JudgeItem]:
    """The continuations in the run folder, as a judge reads them."""
    prompts = {prefix.request.id: prompt_text(prefix.request.prompt) for prefix in prefixes}
    rows = (row for _, row in read_rows(folder / f"{name}generations.jsonl"))
    return [JudgeItem(row["id"], prompts[row["request_id"]], row["prefix"], row["continuation"]) for row in rows]


def _position(verdict: Verdict, continuation: str, encoder: PromptEncoder) -> dict[str, int]:
    """`position_tokens`: the subject's tokens before the correction begins."""
    if verdict.position is None:
        return {}
    before = " ".join(continuation.split()[: verdict.position])
    return {"position_tokens": len(encoder.tokenizer(before, add_special_tokens=False)["input_ids"])}


def _helpfulness(config: RunConfig, measured: Subject, control: Sequence[HarmRequest]) -> dict[str, dict[str, object]]:
    """The toy's gold helpfulness of plain answers to harmless requests: correction must not be paid for there."""
    from alignlab.data.worlds import toy

    prompts = sorted({str(request.prompt) for request in control})
    samples, encoder = config.generator.samples, measured.encoder
    asked = [PrefixRequest(f"plain/{prompt}", encoder.prompt_ids(prompt), samples) for prompt in prompts]
    texts: dict[tuple[str, int], str] = {}

    def note(request_id: str, sample: int, continuation: Continuation) -> None:
        texts[request_id, sample] = continuation.text.strip()

    measured.generate(asked, config, note, label="harmless requests")
    keys = sorted(texts)
    names = [name.removeprefix("plain/") for name, _ in keys]
    values = [toy.helpful(name, texts[key]) for name, key in zip(names, keys, strict=True)]
    formed = [float(toy.is_well_formed(name, texts[key])) for name, key in zip(names, keys, strict=True)]
    return {
        "benign_helpful": mean_interval(values, names).as_record(),
        "benign_well_formed": mean_interval(formed, names).as_record(),
    }
