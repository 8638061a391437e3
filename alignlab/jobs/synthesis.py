"""Synthesis: choose requests, write ranked responses in the policy's words, judge them if asked, export the sets.

A run makes its shard of the requests. Each response is a record of its own (responses.jsonl), so a killed run resumes,
and the files do not depend on the order in which responses came.
"""

from collections import Counter
from pathlib import Path

from alignlab.config.plan import Plan
from alignlab.config.schema import SynthesisConfig
from alignlab.data.requests import requests_report
from alignlab.judges import load_judge
from alignlab.pages import index_link
from alignlab.prerequisites.policy import policy_under_test
from alignlab.prerequisites.rows import data_name
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.synthesis.drafts import Recipe, draft_sets
from alignlab.synthesis.requests import choose_requests
from alignlab.synthesis.responses import (
    REQUESTS,
    RESPONSES,
    Writer,
    fitted,
    judge_responses,
    write_requests,
)
from alignlab.synthesis.shards import Exported, SetSource, export_sets, merge_shards


def run(plan: Plan[SynthesisConfig], run: RunFolder, outcome: Outcome) -> None:
    """Write one shard of the sets, or merge the shards that other runs have written.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, data = plan.algorithm, plan.rows.settings
    source = SetSource(data.name, data.kind, algorithm.pairs, algorithm.filter, plan.record, plan.inputs)
    links = index_link(plan.runs, run.path)
    if algorithm.merge:
        with run.stage("merge"):
            merged = merge_shards([Path(folder) for folder in algorithm.merge], run.path, source)
        outcome.inputs |= merged.inputs
        with run.stage("export"):
            _record(outcome, export_sets(run.path, source, left_out=merged.left_out, links=links))
        return
    with run.stage("requests"):
        outcome.extra |= requests_report(data)
        chosen = choose_requests(data, algorithm)
    with run.stage("prerequisites"):
        device = plan.model.device
        judge = load_judge(plan.judge, cache=plan.cache, folder=run.path, device=device) if plan.judges else None
    left_out: Counter[str] = Counter()
    is_toy = plan.rows.toy is not None
    with policy_under_test(plan.model, algorithm.adapter, plan.generator) as policy:
        generator, longest = fitted(plan.generator, policy)
        recipe = Recipe(algorithm.cuts == "clauses", algorithm.safe, is_toy, longest)
        outcome.inputs |= {"model": policy.id, "revision": policy.revision, "dataset": data_name(plan.rows)}
        with run.stage("drafts"):
            drafts = [
                draft
                for kind, requests in chosen.by_kind.items()
                for drafted in draft_sets(requests, policy.encoder, kind=kind, recipe=recipe, left_out=left_out)
                for draft in drafted
            ]
        write_requests(run.path / REQUESTS, drafts)
        say(f"{len({draft.request.id for draft in drafts})} requests, {len(drafts)} responses")
        with run.stage("writing"):
            Writer(policy, generator, plan.seed).write(run.path / RESPONSES, drafts)
    if judge is not None:
        with run.stage("judging"):
            judge_responses(run.path, judge, drafts)
        outcome.extra["judge"] = judge.report.record()
    with run.stage("export"):
        _record(outcome, export_sets(run.path, source, left_out=(chosen.left_out, left_out), links=links))


def _record(outcome: Outcome, exported: Exported) -> None:
    outcome.extra |= exported.counts
    outcome.artifacts |= exported.artifacts
