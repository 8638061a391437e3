"""What best_of_n and sequence-level logit_mix share: the reference's scored samples, and what weighing them gives."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

from alignlab.config.plan import Plan
from alignlab.config.schema import JudgedConfig
from alignlab.evaluation.measure import GENERATIONS, SCORES
from alignlab.evaluation.weighted import (
    PromptSamples,
    WeightedPrompt,
    describe_against_optimum,
    describe_weighted,
    samples_by_prompt,
)
from alignlab.prerequisites.models import reference
from alignlab.runs.folder import RunFolder
from alignlab.runs.result import Metrics, Outcome, require_finished


def reference_prompts(
    plan: Plan[Any], run: RunFolder, outcome: Outcome, *, samples: int | None
) -> tuple[list[PromptSamples], Metrics]:
    """The samples of the reference's own evaluation, which every w shares, and its metrics; made unless it is there.

    Args:
        plan: the run.
        run: makes the evaluation.
        outcome: takes axes and inputs.
        samples: a prompt; None for generator.samples.
    """
    behind = run.make_run(plan.evaluation(None, samples=samples))
    if samples is not None and plan.scorers:
        run.make_run(plan.evaluation(None))  # the reference that stands on the front
    result = require_finished(f"algorithm={plan.algorithm.name}", behind)
    outcome.axes = result.axes
    outcome.inputs |= {**result.inputs, "reference": str(behind)}
    if "decoding" in result.inputs:  # the number of samples is no part of how one is drawn
        decoding = {**json.loads(result.inputs["decoding"]), "samples": plan.generator.samples}
        outcome.inputs["decoding"] = json.dumps(decoding, sort_keys=True)
    outcome.extra["scorers"] = result.extra.get("scorers") or {}
    return samples_by_prompt(behind), result.metrics


def measure_weighted(
    plan: Plan[Any],
    run: RunFolder,
    outcome: Outcome,
    prompts: Sequence[WeightedPrompt],
    *,
    like: Metrics,
    weights: Mapping[str, float],
    beta: float,
) -> None:
    """Fill in the metrics of a policy that weighs samples of the reference.

    Args:
        plan: the run.
        run: its folder, which holds what the policy says.
        outcome: takes the metrics.
        prompts: the policy.
        like: the reference's metrics.
        weights: of each objective, for its reward in its own unit.
        beta: KL strength of the toy's optimum.
    """
    outcome.artifacts |= {"generations": GENERATIONS, "scores": SCORES}
    shares = {f"{name}_reward" for name, source in plan.scorers.items() if isinstance(source.settings, JudgedConfig)}
    generator = plan.generator
    knows_kl = generator.temperature == 1 and generator.top_p == 1
    describe_weighted(prompts, outcome, like=like, shares=shares, knows_kl=knows_kl)
    golds = {name: str(objective.gold) for name, objective in plan.rows.settings.objectives.items()}
    if plan.rows.toy is None or outcome.axes != golds:
        return
    outcome.beta = beta
    if knows_kl:
        with run.stage("exact front"):
            toy_data, base = plan.rows.toy, reference(plan.model)
            values = {name: (weights[name], gold) for name, gold in golds.items()}
            describe_against_optimum(
                prompts, outcome, toy_data=toy_data, base=base, cache=plan.cache, weights=values, beta=beta
            )
