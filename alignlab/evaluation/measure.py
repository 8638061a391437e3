"""What a policy is worth, on held-out prompts: preferences it agrees with, rewards of what it says, its distance."""

import dataclasses
import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignlab.config.identity import Objectives
from alignlab.config.schema import LocalGeneratorConfig, RunConfig
from alignlab.data.records import RankedRow, prompt_text, ranked_pairs
from alignlab.data.worlds import toy
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.sampling.generate import stop_tokens
from alignlab.engine.sampling.sample import SampleRequest, sample_responses
from alignlab.engine.scoring.logps import Divergence, divergence
from alignlab.engine.scoring.rows import fit
from alignlab.front.exact import exact_point
from alignlab.io.atomic import write_jsonl
from alignlab.io.hashes import text_id
from alignlab.models.adapters import with_adapter
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.prerequisites.reference import ranked_rows
from alignlab.prerequisites.rewards import reward
from alignlab.prerequisites.toy_pairs import reference_samples
from alignlab.rewards.gold import GoldReward
from alignlab.rewards.implicit import ImplicitReward
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say
from alignlab.stats import Interval, clustered_slope, mean_interval, share_interval

Floats = NDArray[np.float64]


def measure(
    config: RunConfig,
    run: RunFolder,
    outcome: Outcome,
    *,
    base: Base,
    adapter: Path | None,
    beta: float,
    objectives: Objectives,
    cache: ScoreCache,
) -> None:
    """Fills in an outcome's metrics, axes and artifacts for one policy: the base model with an adapter, or alone."""
    if adapter is not None:
        with run.stage("held-out preferences"):
            rows = ranked_rows(config, base, config.dataset.eval_split) if config.dataset.split is not None else []
            if rows:
                policy = ImplicitReward(
                    base,
                    adapter,
                    beta=beta,
                    cache=cache,
                    batch_size=config.trainer.per_device_eval_batch_size,
                    name="policy",
                )
                outcome.metrics |= _preference_metrics(config, policy, _ranked_by_rewards(config, base, cache, rows))
    golds = [objective.gold for objective in config.dataset.objectives.values()]
    outcome.axes = {name: f"{name}_accuracy" for name in config.dataset.objectives}
    if all(golds):
        outcome.axes = {name: str(gold) for name, gold in zip(config.dataset.objectives, golds, strict=True)}
        _sampled_metrics(config, run, outcome, base=base, adapter=adapter, beta=beta, objectives=objectives)


def _ranked_by_rewards(
    config: RunConfig, base: Base, cache: ScoreCache, rows: Sequence[RankedRow]
) -> Sequence[RankedRow]:
    """The rows, ranked also by the named rewards of objectives that have no labels, such as a length penalty.

    Their accuracy is then the share of pairs in which the policy prefers what the reward prefers.
    """
    named = getattr(config.algorithm, "rewards", {})
    for name, objective in config.dataset.objectives.items():
        if objective.label is not None or name not in named:
            continue
        one = reward(config, name, base, cache)
        texts = [(row.prompt, text) for row in rows for text in row.responses]
        scores = iter(one.score([prompt for prompt, _ in texts], [text for _, text in texts]).tolist())
        one.release()
        ranked = [(row, tuple(next(scores) for _ in row.responses)) for row in rows]
        rows = [dataclasses.replace(row, scores={**row.scores, name: own}) for row, own in ranked]
    return rows


def _preference_metrics(
    config: RunConfig, policy: ImplicitReward, rows: Sequence[RankedRow]
) -> dict[str, dict[str, object]]:
    """Accuracy and margin of the policy's implicit reward by every objective's labels; intervals over prompts."""
    groups, values = _implicit_rewards(config, policy, rows)
    metrics: dict[str, dict[str, object]] = {}
    for name, objective in config.dataset.objectives.items():
        margins, clusters = _margins(rows, groups, values, name)
        right = np.where(margins == 0, 0.5, margins > 0)
        metrics[f"{name}_accuracy"] = share_interval(right, clusters).as_record()
        metrics[f"{name}_margin"] = mean_interval(margins, clusters).as_record()
        if objective.gold is not None:
            reward = GoldReward(objective.gold, policy.base.encoder)
            differences = _against_gold(rows, groups, values, reward)
            metrics[f"{name}_slope"] = clustered_slope(*differences).as_record()
    return metrics


def _implicit_rewards(
    config: RunConfig, policy: ImplicitReward, rows: Sequence[RankedRow]
) -> tuple[list[str], list[list[float | None]]]:
    """Every row's group, and the policy's implicit reward of each response; None where the limit leaves none of it."""
    limit = config.trainer.max_length
    encoded = policy.base.encoder.encode_all([(row.prompt, text) for row in rows for text in row.responses])
    cut = [fit(row, limit) for row in encoded]
    scored = iter(policy.score_encoded([row for row in cut if row.response_ids]).tolist())
    flat = iter([next(scored) if row.response_ids else None for row in cut])
    return [row.group for row in rows], [[next(flat) for _ in row.responses] for row in rows]


def _margins(
    rows: Sequence[RankedRow], groups: Sequence[str], values: Sequence[Sequence[float | None]], objective: str
) -> tuple[Floats, list[str]]:
    """Implicit reward of the better minus the worse response of every pair by an objective, with the pair's group."""
    margins, clusters = [], []
    for row, group, scores in zip(rows, groups, values, strict=True):
        for better, worse in ranked_pairs(row, objective):
            high, low = scores[better], scores[worse]
            if high is not None and low is not None:
                margins.append(high - low)
                clusters.append(group)
    return np.array(margins), clusters


def _against_gold(
    rows: Sequence[RankedRow], groups: Sequence[str], values: Sequence[Sequence[float | None]], reward: GoldReward
) -> tuple[Floats, Floats, list[str]]:
    """Implicit and gold differences of any two responses of a row, whatever its labels say, with the row's group."""
    prompts = [prompt_text(row.prompt) for row in rows for _ in row.responses]
    gold = iter(reward.score(prompts, [text for row in rows for text in row.responses]).tolist())
    implicit, true, clusters = [], [], []
    for group, scores in zip(groups, values, strict=True):
        both = [(score, next(gold)) for score in scores]
        for (first, first_gold), (second, second_gold) in itertools.combinations(both, 2):
            if first is not None and second is not None:
                implicit.append(first - second)
                true.append(first_gold - second_gold)
                clusters.append(group)
    return np.array(implicit), np.array(true), clusters


def _sampled_metrics(
    config: RunConfig,
    run: RunFolder,
    outcome: Outcome,
    *,
    base: Base,
    adapter: Path | None,
    beta: float,
    objectives: Objectives,
) -> None:
    """Samples the policy on held-out prompts, scores what it says, and compares it with the exact optimum."""
    prompts = toy.prompts("test")
    with run.stage("sampling"):
        requests = [
            SampleRequest(f"{prompt}/{sample}", ids)
            for prompt, ids in ((prompt, base.encoder.prompt_ids(prompt)) for prompt in prompts)
            for sample in range(config.generator.samples)
        ]
        rows, distance = sample(config, base, adapter, requests)
    groups = [prompt for prompt in prompts for _ in range(config.generator.samples)]
    texts = [base.encoder.response_text(row.response_ids) for row in rows]
    golds = {name: str(objective.gold) for name, objective in config.dataset.objectives.items()}
    scores = {gold: GoldReward(gold, base.encoder).score(groups, texts).double().numpy() for gold in golds.values()}
    formed = np.array([toy.is_well_formed(*pair) for pair in zip(groups, texts, strict=True)], dtype=float)
    columns = scores | ({} if distance is None else {"kl": distance.kl.double().numpy()})
    _write_records(run, outcome, requests, groups, texts, columns)
    for name, values in columns.items():
        outcome.metrics[name] = mean_interval(values, groups).as_record()
    outcome.metrics["well_formed"] = share_interval(formed, groups).as_record()
    if distance is None:
        return
    with run.stage("exact front"):
        rewards_PSM = reference_samples(config, base, prompts)
    weighted = sum(weight * scores[golds[name]] for name, weight in objectives.weights.items())
    tilt = np.asarray(weighted) / beta
    weights = list(objectives.weights.values())
    try:
        outcome.metrics |= _against_optimum(distance.log_ratio.double().numpy() - tilt, rewards_PSM, weights, beta)
    except ValueError as error:  # too few effective samples: the optimum is not known, the run is none the worse
        say(f"no distance to the optimum: {error} (dataset.exact_samples, algorithm.beta)")


def sample(
    config: RunConfig, base: Base, adapter: Path | None, requests: list[SampleRequest]
) -> tuple[list[Encoded], Divergence | None]:
    """Responses and their divergence; None where the sampling settings draw from another distribution."""
    assert isinstance(config.generator, LocalGeneratorConfig)
    generator, stops = config.generator, stop_tokens(base.model, base.encoder)

    def sampled(model: Any) -> list[Encoded]:
        return sample_responses(model, requests, config=generator, seed=config.seed, stops=stops, label="sampling")

    if adapter is None:
        rows = sampled(base.model)
        return rows, Divergence(torch.zeros(len(rows)), torch.zeros(len(rows)))
    with with_adapter(base.model, adapter) as model:
        rows = sampled(model)
        if config.generator.temperature != 1 or config.generator.top_p != 1:
            say("no KL and no distance to the optimum: generator.temperature and top_p must be 1 to sample the policy")
            return rows, None
        batch_size = config.trainer.per_device_eval_batch_size
        return rows, divergence(model, rows, batch_size=batch_size, label="KL to the reference")


def _against_optimum(
    excess: Floats, rewards_PSM: Floats, weights: list[float], beta: float
) -> dict[str, dict[str, object]]:
    """attained_share and kl_to_optimum, with intervals over prompts, and the worst effective sample size.

    Args:
        excess: log(pi/pi_ref) - w.r/beta of every sampled response, prompt by prompt, shape (P * samples,). With log Z
            of its prompt added it is log(pi/pi_w), whose mean is KL(pi || pi_w): near the optimum it hardly varies,
            which makes it a far sharper estimate than reward and KL apart.
        rewards_PSM: gold rewards of reference samples on the same prompts.
        weights: one weight an objective.
        beta: KL strength, 1/nat.
    """
    whole = exact_point(rewards_PSM, weights=weights, beta=beta)
    prompts = [rewards_PSM[[place]] for place in range(len(rewards_PSM))]
    points = [exact_point(rewards_1SM, weights=weights, beta=beta) for rewards_1SM in prompts]
    log_z_P = np.array([point.J_star for point in points]) / beta
    gain = whole.J_star - whole.J_ref
    samples = excess.size // len(points)
    distances = excess + np.repeat(log_z_P, samples)
    distance = mean_interval(distances, np.repeat(np.arange(len(points)), samples).tolist())
    metrics = {"kl_to_optimum": distance.as_record()}
    if gain > 1e-9 and distance.mean is not None:
        share = [None if end is None else 1 - end * beta / gain for end in (distance.mean, distance.high, distance.low)]
        attained = Interval(share[0], share[1], share[2], excess.size, groups=distance.groups)
        metrics["attained_share"] = attained.as_record()
    worst = Interval(float(whole.ess_P.min()), None, None, n=rewards_PSM.shape[1], groups=1)
    metrics["exact_ess"] = worst.as_record()
    return metrics


def _write_records(
    run: RunFolder,
    outcome: Outcome,
    requests: Sequence[SampleRequest],
    prompts: Sequence[str],
    texts: Sequence[str],
    columns: dict[str, Floats],
) -> None:
    """generations.jsonl and scores.jsonl, one row a response, joined by id."""
    ids = [text_id(request.id) for request in requests]
    generations = [
        {"id": row_id, "prompt": prompt, "response": text}
        for row_id, prompt, text in zip(ids, prompts, texts, strict=True)
    ]
    scores = [
        {"id": row_id, **{name: float(values[place]) for name, values in columns.items()}}
        for place, row_id in enumerate(ids)
    ]
    write_jsonl(run.path / "generations.jsonl", generations)
    write_jsonl(run.path / "scores.jsonl", scores)
    outcome.artifacts |= {"generations": "generations.jsonl", "scores": "scores.jsonl"}
