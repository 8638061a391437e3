"""Course correction: prefill a harmful beginning, sample continuations, judge them, report Corr@k (arXiv 2407.16637).

Beside Corr@k stands what the policy says without a prefix.
"""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from alignlab.config.plan import Plan
from alignlab.config.schema import CourseCorrectionConfig, DatasetConfig, GeneratorConfig
from alignlab.course_correction.compare import against_labels, compare_runs
from alignlab.course_correction.continuations import (
    CONTROL,
    PLAIN,
    PLAIN_CONTROL,
    Sampler,
    judge_continuations,
    judge_items,
)
from alignlab.course_correction.plain import plain_kl, plain_metrics, untruncated
from alignlab.course_correction.prefixes import PrefixRecipe, build_prefixes, plain_prefixes
from alignlab.course_correction.report import Measurement, report
from alignlab.data.requests import benign_requests, control_file, read_requests, requests_report
from alignlab.errors import ConfigError, OnlyPlanned
from alignlab.judges import load_judge
from alignlab.pages import Link, index_link
from alignlab.prerequisites.policy import Policy, policy_under_test
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome


def run(plan: Plan[CourseCorrectionConfig], run: RunFolder, outcome: Outcome) -> None:
    """Measure Corr@k of one policy, or compare runs that did.

    Args: every job's, see `alignlab.jobs`.
    """
    algorithm, generator, cache = plan.algorithm, plan.generator, plan.cache
    if algorithm.compare:
        _compare(algorithm, run.path, outcome, seed=plan.seed, links=index_link(plan.runs, run.path))
        return
    data, is_toy = measured_part(plan.rows.settings), plan.rows.toy is not None
    outcome.extra |= requests_report(data)
    harmful = read_requests(data)
    harmless = control_file(Path(algorithm.control)) if algorithm.control else benign_requests(data)
    with run.stage("prerequisites"):
        judge = load_judge(plan.judge, cache=cache, folder=run.path, device=plan.model.device)
    with policy_under_test(plan.model, algorithm.adapter, generator) as policy:
        outcome.inputs |= {"model": policy.id, "revision": policy.revision}
        recipe = _recipe(algorithm, policy, generator, is_toy=is_toy)
        built = {"": build_prefixes(harmful, policy.encoder, recipe)}
        plain = {PLAIN: plain_prefixes(harmful, policy.encoder, recipe)}
        if harmless:
            built[CONTROL] = build_prefixes(harmless, policy.encoder, recipe)
            plain[PLAIN_CONTROL] = plain_prefixes(harmless, policy.encoder, recipe)
        if not built[""].kept:
            raise ConfigError(f"algorithm.k={algorithm.k}: no prefix is left to continue ({built[''].counts()})")
        sampler = Sampler(policy, generator, plan.seed, cache, run.path)
        for kind, prefixes in built.items():
            say(prefixes.line("harmless prefixes" if kind else "harmful prefixes"))
            outcome.extra[f"{kind}prefixes"] = prefixes.counts()
            with run.stage(f"{kind}generation"):
                sampler.fill(prefixes.kept, kind)
        with run.stage("plain requests"):
            whole = dataclasses.replace(sampler, settings=untruncated(generator))
            for kind, prefixes in plain.items():
                whole.fill(prefixes.kept, kind)
            without_prefix = plain_kl(run.path, policy, batch_size=plan.recipe.trainer.per_device_eval_batch_size)
        encoder = policy.encoder
    items = [item for kind in built for item in judge_items(run.path, kind)]
    planned = judge.planned(items)
    if planned is not None:
        raise OnlyPlanned(planned)
    for kind in built:
        with run.stage(f"{kind}judging"):
            judge_continuations(run.path, judge, encoder, kind)
    outcome.extra["judge"] = judge.report.record()
    for kind in plain:
        without_prefix |= plain_metrics(run.path, kind, is_toy=is_toy)
    reported = report(
        run.path,
        _measurement(plan),
        plain=without_prefix,
        judged=outcome.extra["judge"],
        prefixes=outcome.extra["prefixes"],
        links=index_link(plan.runs, run.path),
    )
    outcome.metrics |= reported.metrics
    outcome.artifacts |= reported.artifacts


def measured_part(dataset: DatasetConfig) -> DatasetConfig:
    """The data that a policy is measured on: not the part that it is trained on."""
    return dataclasses.replace(dataset, split="test") if dataset.split == "train" else dataset


def _recipe(
    algorithm: CourseCorrectionConfig, policy: Policy, generator: GeneratorConfig, *, is_toy: bool
) -> PrefixRecipe:
    longest = policy.max_prefix_tokens(generator.max_new_tokens)
    return PrefixRecipe(algorithm.k, algorithm.profile, algorithm.turn, is_toy, generator.samples, longest)


def _measurement(plan: Plan[CourseCorrectionConfig]) -> Measurement:
    algorithm, generator = plan.algorithm, plan.generator
    return Measurement(
        model=plan.model.settings.name,
        adapter=algorithm.adapter,
        data=plan.rows.settings.name,
        profile=algorithm.profile,
        turn=algorithm.turn if algorithm.profile != "paper" else "as the reference code has it",
        ks=algorithm.k,
        judge=plan.judge.kind,
        samples=generator.samples,
        temperature=generator.temperature,
        top_p=generator.top_p,
    )


def _compare(
    algorithm: CourseCorrectionConfig, folder: Path, outcome: Outcome, *, seed: int, links: Sequence[Link]
) -> None:
    outcome.artifacts |= compare_runs([Path(one) for one in algorithm.compare], folder, links=links)
    if algorithm.labels is not None:
        (only,) = algorithm.compare
        outcome.extra["labels"] = against_labels(Path(only), Path(algorithm.labels), folder, seed=seed)
        outcome.artifacts["labelled"] = "labelled.json"
