"""Synthesis: choose requests, write ranked responses in the model's own words, judge them if asked, export the sets.

A run makes its share of the requests. Each response is a record of its own (responses.jsonl), so a killed run goes on
where it was, and what it leaves does not depend on the order in which responses came.
"""

import dataclasses
import hashlib
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from alignlab.config.fingerprints import input_fingerprints
from alignlab.config.plan import Plan
from alignlab.config.schema import RunConfig, SynthesisConfig, ToyConfig
from alignlab.data.rankings import HARMFUL
from alignlab.data.records import HarmRequest, prompt_text
from alignlab.data.worlds import toy
from alignlab.engine.sampling.base import Continuation, PrefixRequest
from alignlab.io.atomic import write_jsonl
from alignlab.io.records import Records
from alignlab.judges import Judge, JudgeItem, load_judge
from alignlab.prerequisites.policy import Subject, subject
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.synthesis.drafts import CORRECTED, SAFE, Draft, Recipe, draft_sets
from alignlab.synthesis.export import rows_of
from alignlab.synthesis.requests import choose_requests
from alignlab.synthesis.shards import REQUESTS, RESPONSES, VERDICTS, finish, merge


def run(plan: Plan[Any], run: RunFolder, outcome: Outcome) -> None:
    """Writes one share of the sets, or merges the shares that other runs have written."""
    config = plan.config
    algorithm = config.algorithm
    assert isinstance(algorithm, SynthesisConfig)
    if algorithm.merge:
        merge(config, run, outcome)
        return
    left_out: Counter[str] = Counter()
    with run.stage("requests"):
        chosen, of_whole = choose_requests(config)
    with run.stage("prerequisites"):
        judge = None if algorithm.filter == "none" else _judge_of(config, run)
    with subject(config, algorithm.adapter) as student:
        fitted, recipe = _fitted(config, student)
        outcome.inputs |= {"model": student.id, "revision": student.revision, "dataset": _data_of(config)}
        with run.stage("drafts"):
            drafts = [
                draft
                for kind, requests in chosen.items()
                for drafted in draft_sets(requests, student.encoder, kind=kind, recipe=recipe, left_out=left_out)
                for draft in drafted
            ]
        _write_requests(run.path / REQUESTS, drafts)
        say(f"{len({draft.request.id for draft in drafts})} requests, {len(drafts)} responses")
        with run.stage("writing"):
            _write_responses(fitted, run.path, student, drafts)
    if judge is not None:
        with run.stage("judging"):
            _judge(run.path, judge, drafts)
        outcome.extra["judge"] = judge.report.record()
    with run.stage("export"):
        finish(config, run, outcome, of_whole=of_whole, of_share=left_out)


def _data_of(config: RunConfig) -> str:
    if isinstance(config.dataset, ToyConfig):
        return f"toy world {toy.WORLD_VERSION}"
    return input_fingerprints(config).get("dataset.path", str(getattr(config.dataset, "hub", "")))


def _judge_of(config: RunConfig, run: RunFolder) -> Judge:
    return load_judge(config.judge, cache=Path(config.paths.cache), folder=run.path, device=config.hardware.device)


def _fitted(config: RunConfig, student: Subject) -> tuple[RunConfig, Recipe]:
    """The config with responses of at most half the student's context, and how drafts are made for it."""
    algorithm, generator = config.algorithm, config.generator
    assert isinstance(algorithm, SynthesisConfig)
    room = student.room
    if room is not None:
        context = room + generator.max_new_tokens
        limit = min(generator.max_new_tokens, context // 2)
        room = context - limit
        config = dataclasses.replace(config, generator=dataclasses.replace(generator, max_new_tokens=limit))
    is_toy = isinstance(config.dataset, ToyConfig)
    return config, Recipe(algorithm.cuts == "clauses", algorithm.safe, is_toy, room)


def _write_requests(path: Path, drafts: Sequence[Draft]) -> None:
    rows = {
        draft.request.id: {
            "id": draft.request.id,
            "group": draft.request.group,
            "kind": draft.kind,
            "prompt": _as_json(draft.request),
            "location": draft.request.location,
        }
        for draft in drafts
    }
    write_jsonl(path, [rows[name] for name in sorted(rows)])


def _as_json(request: HarmRequest) -> Any:
    return request.prompt if isinstance(request.prompt, str) else [asdict(turn) for turn in request.prompt]


def _write_responses(config: RunConfig, folder: Path, student: Subject, drafts: Sequence[Draft]) -> None:
    """Fills responses.jsonl; what a killed run has written is kept."""
    by_id = {draft.id: draft for draft in drafts}
    author = _Author(student, config.seed)
    starts = hashlib.sha256(json.dumps([[draft.id, draft.start, draft.ids] for draft in drafts]).encode()).hexdigest()
    sampling = [config.generator.kind, config.generator.temperature, config.generator.top_p]
    longest = config.generator.max_new_tokens
    made_for = {"student": student.id, "seed": config.seed, "sampling": sampling, "longest": longest, "starts": starts}
    with Records(folder / RESPONSES, list(by_id), made_for=made_for) as records:
        missing = set(records.missing())
        if len(missing) < len(by_id):
            say(f"responses: {len(by_id) - len(missing)} of {len(by_id)} are known from before")
        asked = []
        for name in sorted(missing):
            if by_id[name].ids:
                asked.append(PrefixRequest(name, list(by_id[name].ids), 1))
            else:
                records.add(author.row(by_id[name], None))

        def note(request_id: str, _: int, continuation: Continuation) -> None:
            records.add(author.row(by_id[request_id], continuation))

        if asked:
            student.generate(asked, config, note, label="responses")
        records.finish()


@dataclass(frozen=True)
class _Author:
    """Who writes: signs the rows of responses.jsonl."""

    student: Subject
    seed: int

    def row(self, draft: Draft, continuation: Continuation | None) -> dict[str, Any]:
        """A response's row. `written` is the student's part of it."""
        written = "" if continuation is None else continuation.text
        response = (draft.start + written).strip()
        tokens = self.student.encoder.tokenizer(response, add_special_tokens=False)["input_ids"]
        return {
            "id": draft.id,
            "request_id": draft.request.id,
            "kind": draft.kind,
            "rank": draft.rank,
            "role": draft.role,
            "response": response,
            "written": written,
            "finish": None if continuation is None else continuation.finish,
            "tokens": len(tokens),
            "cut_tokens": None if draft.cut is None else draft.cut.tokens,
            "at_clause": None if draft.cut is None else draft.cut.at_clause,
            "opener": None if draft.opener is None else draft.opener.id,
            "trigger": None if draft.trigger is None else draft.trigger.id,
            "refusal": None if draft.refusal is None else draft.refusal.id,
            "seed": self.seed,
            "generator": self.student.id,
            "revision": self.student.revision,
        }


def _judge(folder: Path, judge: Judge, drafts: Sequence[Draft]) -> None:
    """Fills verdicts.jsonl: does a corrected response correct its course, and the student's own safe one refuse?"""
    asked = {draft.id: draft for draft in drafts if draft.kind == HARMFUL and _is_judged(draft)}
    with Records(folder / VERDICTS, list(asked), made_for={"judge": judge.id}) as records:
        missing = set(records.missing())
        items = [_item(asked[row["id"]], row["written"]) for row in rows_of(folder / RESPONSES) if row["id"] in missing]
        if items:
            judge.verdicts(items, lambda verdict: records.add(verdict.row()))
        records.finish()


def _is_judged(draft: Draft) -> bool:
    return draft.role == CORRECTED or (draft.role == SAFE and not draft.start)


def _item(draft: Draft, written: str) -> JudgeItem:
    trigger = "" if draft.trigger is None else f" {draft.trigger.text}"
    return JudgeItem(draft.id, prompt_text(draft.request.prompt), draft.begun, trigger + written)
