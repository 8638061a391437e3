"""What a policy is worth, on held-out prompts: preferences it agrees with, rewards of what it says, its distance."""

import dataclasses
import itertools
from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignlab.config.objectives import Objectives
from alignlab.config.parts import RowSource, Sampling
from alignlab.config.schema import ToyConfig
from alignlab.data.records import RankedRow, prompt_text, ranked_pairs
from alignlab.data.worlds import toy
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.sampling.generate import stop_tokens
from alignlab.engine.sampling.mixture import Member, mixture_of
from alignlab.engine.sampling.sample import SampleRequest, sample_responses
from alignlab.engine.scoring.logps import Divergence, divergence
from alignlab.engine.scoring.rows import fit
from alignlab.evaluation.length import length_of_pairs
from alignlab.evaluation.texts import repetition, toy_over_refusal
from alignlab.front.exact import exact_point
from alignlab.io.atomic import write_jsonl
from alignlab.io.hashes import text_id
from alignlab.models.adapters import with_adapter
from alignlab.models.base import Base
from alignlab.models.prompts import Encoded
from alignlab.prerequisites.toy_pairs import reference_samples
from alignlab.rewards.base import Reward
from alignlab.rewards.gold import GoldReward
from alignlab.rewards.implicit import ImplicitReward
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import Interval, clustered_slope, mean_interval, pair_accuracy, share_interval

Floats = NDArray[np.float64]
GENERATIONS, SCORES = "generations.jsonl", "scores.jsonl"


@dataclass(frozen=True)
class Policy:
    """What is measured: the base model with an adapter, or alone, at the weights and beta that it was trained for."""

    base: Base
    adapter: Path | None
    beta: float
    """KL strength, 1/nat."""
    objectives: Objectives
    cache: ScoreCache
    batch_size: int
    """Rows of one forward."""
    scales: Mapping[str, float] = dataclasses.field(default_factory=dict)
    """What the rewards of some objectives were divided by before they were weighed."""
    mixture: tuple[Member, ...] = ()
    """The policies that it mixes token by token, in an adapter's place."""
    key: str = "adapter"
    """What the adapter stands under, for errors."""
    has_weights: bool = True
    """Whether it was trained for these weights; what nobody knows the weights of has no optimum to be compared with."""

    @property
    def is_reference(self) -> bool:
        """Whether it is the base model alone."""
        return self.adapter is None and not self.mixture

    def model(self) -> AbstractContextManager[Any]:
        """The model that is sampled; the base is itself again on exit."""
        if self.mixture:
            return mixture_of(self.base.model, self.mixture)
        if self.adapter is None:
            return nullcontext(self.base.model)
        return with_adapter(self.base.model, self.adapter, key=self.key)

    @property
    def reward(self) -> ImplicitReward:
        """Beta * log(pi / pi_ref), which preference metrics read."""
        assert self.adapter is not None
        cache, size = self.cache, self.batch_size
        return ImplicitReward(
            self.base, self.adapter, beta=self.beta, cache=cache, batch_size=size, name="policy", key=self.key
        )


def measure(
    policy: Policy,
    run: RunFolder,
    outcome: Outcome,
    *,
    source: RowSource,
    held_out: Sequence[RankedRow],
    sampling: Callable[[], Sampling],
) -> None:
    """Fill in an outcome's metrics, axes and artifacts for one policy.

    Args:
        policy: what is measured.
        run: times the stages and keeps the records.
        outcome: takes the metrics.
        source: the data, whose objectives are measured.
        held_out: rows of the test split; the reference alone is not measured on preferences.
        sampling: how responses are sampled where gold rewards can score them.
    """
    golds = {name: objective.gold for name, objective in source.settings.objectives.items()}
    if policy.adapter is not None and held_out:
        with run.stage("held-out preferences"):
            outcome.metrics |= _preference_metrics(policy.reward, golds, held_out, source.max_length)
    outcome.axes = {name: f"{name}_accuracy" for name in golds}
    if source.toy is not None and all(golds.values()):
        known = {name: str(gold) for name, gold in golds.items()}
        outcome.axes = known
        _sampled_metrics(policy, run, outcome, golds=known, toy_data=source.toy, sampling=sampling())


def ranked_by_rewards(rows: Sequence[RankedRow], rewards: Mapping[str, Reward]) -> list[RankedRow]:
    """The rows, ranked also by the rewards of objectives that have no labels, such as a length penalty.

    Their accuracy is then the share of pairs in which the policy prefers what the reward prefers.
    """
    ranked = list(rows)
    texts = [(row.prompt, text) for row in rows for text in row.responses]
    for name, one in rewards.items():
        scores = iter(one.score([prompt for prompt, _ in texts], [text for _, text in texts]).tolist())
        one.release()
        scored = [(row, tuple(next(scores) for _ in row.responses)) for row in ranked]
        ranked = [dataclasses.replace(row, scores={**row.scores, name: own}) for row, own in scored]
    return ranked


def _preference_metrics(
    policy: ImplicitReward, golds: Mapping[str, str | None], rows: Sequence[RankedRow], limit: int | None
) -> dict[str, dict[str, object]]:
    """Accuracy and margin of the policy's implicit reward by every objective's labels; intervals over prompts.

    Args:
        policy: scores responses.
        golds: objective -> name of its true reward, None where nobody knows it.
        rows: held-out rows.
        limit: longest prompt plus response, tokens.
    """
    groups, values = _implicit_rewards(policy, rows, limit)
    metrics: dict[str, dict[str, object]] = {}
    for name, gold in golds.items():
        margins, lengths, clusters = _margins(rows, groups, values, name)
        metrics |= preference_metrics(name, margins, clusters) | length_of_pairs(name, margins, lengths, clusters)
        if gold is not None:
            differences = _against_gold(rows, groups, values, GoldReward(gold, policy.base.encoder))
            metrics[f"{name}_slope"] = clustered_slope(*differences).as_record()
    return metrics


def preference_metrics(name: str, margins: Floats, groups: Sequence[str]) -> dict[str, dict[str, object]]:
    """`NAME_accuracy` and `NAME_margin` of chosen-minus-rejected scores; an equal pair counts one half.

    Args:
        name: the objective.
        margins: score of the better minus the worse response of every pair, shape (n,).
        groups: the prompt group of every pair.
    """
    return {
        f"{name}_accuracy": pair_accuracy(margins, groups).as_record(),
        f"{name}_margin": mean_interval(margins, groups).as_record(),
    }


def _implicit_rewards(
    policy: ImplicitReward, rows: Sequence[RankedRow], limit: int | None
) -> tuple[list[str], list[list[float | None]]]:
    """Every row's group, and the policy's implicit reward of each response; None where the limit leaves none of it."""
    encoded = policy.base.encoder.encode_all([(row.prompt, text) for row in rows for text in row.responses])
    cut = encoded if limit is None else [fit(row, limit) for row in encoded]
    scored = iter(policy.score_encoded([row for row in cut if row.response_ids]).tolist())
    flat = iter([next(scored) if row.response_ids else None for row in cut])
    return [row.group for row in rows], [[next(flat) for _ in row.responses] for row in rows]


def _margins(
    rows: Sequence[RankedRow], groups: Sequence[str], values: Sequence[Sequence[float | None]], objective: str
) -> tuple[Floats, Floats, list[str]]:
    """Of every pair by an objective, better minus worse: implicit rewards, lengths in characters; and its group."""
    margins, lengths, clusters = [], [], []
    for row, group, scores in zip(rows, groups, values, strict=True):
        for better, worse in ranked_pairs(row, objective):
            high, low = scores[better], scores[worse]
            if high is not None and low is not None:
                margins.append(high - low)
                lengths.append(float(len(row.responses[better]) - len(row.responses[worse])))
                clusters.append(group)
    return np.array(margins), np.array(lengths), clusters


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
    policy: Policy,
    run: RunFolder,
    outcome: Outcome,
    *,
    golds: Mapping[str, str],
    toy_data: ToyConfig,
    sampling: Sampling,
) -> None:
    """Sample the policy on held-out prompts, score what it says, and compare it with the exact optimum.

    Args:
        policy: what is sampled.
        run: times the stages and keeps the records.
        outcome: takes the metrics.
        golds: objective -> name of its true reward.
        toy_data: the world.
        sampling: how.
    """
    prompts, encoder = toy.prompts("test"), policy.base.encoder
    with run.stage("sampling"):
        requests = sample_requests(
            {prompt: encoder.prompt_ids(prompt) for prompt in prompts}, sampling.generator.samples
        )
        rows, distance = sample(policy, requests, sampling)
    groups = [prompt for prompt in prompts for _ in range(sampling.generator.samples)]
    texts = [encoder.response_text(row).strip() for row in rows]
    scores = {
        gold: GoldReward(gold, encoder).score(groups, texts).double().numpy() for gold in dict.fromkeys(golds.values())
    }
    formed = np.array([toy.is_well_formed(*pair) for pair in zip(groups, texts, strict=True)], dtype=float)
    columns = scores | ({} if distance is None else {"kl": distance.kl.double().numpy()})
    columns["repetition"] = np.array([repetition(text) for text in texts], dtype=float)
    columns["tokens"] = np.array([len(row.response_ids) for row in rows], dtype=float)
    finishes = ["stop" if encoder.has_ended(row.response_ids) else "length" for row in rows]
    _write_records(run.path, requests, groups, texts, finishes, columns)
    outcome.artifacts |= {"generations": GENERATIONS, "scores": SCORES}
    for name, values in columns.items():
        outcome.metrics[name] = mean_interval(values, groups).as_record()
    outcome.metrics["well_formed"] = share_interval(formed, groups).as_record()
    outcome.metrics["over_refusal"] = toy_over_refusal(groups, texts).as_record()
    if distance is None or policy.is_reference or not policy.has_weights:
        return
    with run.stage("exact front"):
        rewards_PSM = reference_samples(toy_data, policy.base, prompts, cache=policy.cache.root.parent)
    scaled, beta = policy.objectives.weights.items(), policy.beta
    weights = {name: weight / policy.scales.get(name, 1.0) for name, weight in scaled}
    weighted = sum(weight * scores[golds[name]] for name, weight in weights.items())
    excess = distance.log_ratio.double().numpy() - np.asarray(weighted) / beta
    try:
        outcome.metrics |= against_optimum(excess, rewards_PSM, list(weights.values()), beta)
    except ValueError as error:  # too few effective samples: the optimum is not known, the run is none the worse
        say(f"no distance to the optimum: {error} (dataset.exact_samples, algorithm.beta)")


def sample_requests(prompts: Mapping[str, list[int]], samples: int) -> list[SampleRequest]:
    """`samples` requests of every prompt, prompt by prompt, with the ids that their randomness derives from."""
    return [SampleRequest(f"{name}/{index}", ids) for name, ids in prompts.items() for index in range(samples)]


def sample(
    policy: Policy, requests: list[SampleRequest], sampling: Sampling
) -> tuple[list[Encoded], Divergence | None]:
    """Responses and their divergence; None where the sampling settings draw from another distribution.

    Args:
        policy: what is sampled.
        requests: prompts with their ids.
        sampling: settings and seed.
    """
    base, generator = policy.base, sampling.generator
    stops = stop_tokens(base.model, base.encoder)

    def sampled(model: Any) -> list[Encoded]:
        return sample_responses(model, requests, config=generator, seed=sampling.seed, stops=stops, label="sampling")

    if policy.is_reference:
        rows = sampled(base.model)
        return rows, Divergence(torch.zeros(len(rows)), torch.zeros(len(rows)))
    with policy.model() as model:
        rows = sampled(model)
        if generator.temperature != 1 or generator.top_p != 1:
            say("no KL and no distance to the optimum: generator.temperature and top_p must be 1 to sample the policy")
            return rows, None
        return rows, divergence(model, rows, batch_size=policy.batch_size, label="KL to the reference")


def against_optimum(
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
    prompts = [rewards_PSM[[index]] for index in range(len(rewards_PSM))]
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
    folder: Path,
    requests: Sequence[SampleRequest],
    prompts: Sequence[str],
    texts: Sequence[str],
    finishes: Sequence[str],
    columns: Mapping[str, Floats],
) -> None:
    """Write generations.jsonl and scores.jsonl, one row a response, joined by id.

    Args:
        folder: the run's.
        requests: name the responses.
        prompts: of every response.
        texts: the responses.
        finishes: how each ended, "stop" or "length".
        columns: score -> its value for every response, NaN where it has none.
    """
    ids = [text_id(request.id) for request in requests]
    generations = [
        {"id": row_id, "prompt": prompt, "response": text, "finish": finish}
        for row_id, prompt, text, finish in zip(ids, prompts, texts, finishes, strict=True)
    ]
    scores = [
        {"id": row_id, **{name: _known(values[index]) for name, values in columns.items()}}
        for index, row_id in enumerate(ids)
    ]
    write_jsonl(folder / GENERATIONS, generations)
    write_jsonl(folder / SCORES, scores)


def _known(value: np.float64) -> float | None:
    return None if np.isnan(value) else float(value)
