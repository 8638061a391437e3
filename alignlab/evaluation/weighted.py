"""Policies that weigh the reference's own samples: their metrics are weighted means, and nothing is sampled anew.

Shape letters: S samples of one prompt, P prompts.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from alignlab.config.schema import ToyConfig
from alignlab.data.files import read_rows
from alignlab.data.worlds import toy
from alignlab.evaluation.measure import GENERATIONS, SCORES, against_optimum
from alignlab.evaluation.scored import columns_of
from alignlab.evaluation.texts import refuses
from alignlab.io.atomic import write_jsonl
from alignlab.judges.base import has_words
from alignlab.models.base import Base
from alignlab.prerequisites.toy_pairs import reference_samples
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import mean_interval, paired_difference, ratio_interval, share_interval

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class PromptSamples:
    """The reference's samples of one prompt."""

    group: str
    rows: list[dict[str, Any]]
    """Of generations.jsonl."""
    scores: list[dict[str, Any]]
    """The same samples' rows of scores.jsonl."""

    def column(self, name: str) -> Floats:
        """A score of every sample, NaN where it is unknown, (S,)."""
        values = [row.get(name) for row in self.scores]
        return np.array([np.nan if value is None else float(value) for value in values])


@dataclass(frozen=True)
class WeightedPrompt:
    """What a policy makes of one prompt's samples."""

    samples: PromptSamples
    probability_S: Floats
    """Of each sample; they sum to 1."""
    kl: float
    """KL to the reference, nats."""

    def mean(self, values_S: Floats) -> float | None:
        """Mean of a quantity under the policy; None where one of its samples does not know it."""
        used_S = self.probability_S > 0
        found = float(self.probability_S[used_S] @ values_S[used_S])
        return None if np.isnan(found) else found


@dataclass(frozen=True)
class Tilted:
    """A distribution over samples that is tilted from another."""

    probability_S: Floats
    kl: float
    """To the one it is tilted from, nats."""
    ess: float
    """Effective samples."""


def tilted(tilts_S: Floats, base_S: Floats | None = None) -> Tilted:
    """Probabilities in proportion to base * exp(tilt): of samples, self-normalised importance weights.

    Args:
        tilts_S: log(pi/pi_ref) up to a constant, (S,).
        base_S: probabilities of the base; None for samples of it, which count alike.
    """
    base_S = np.full(len(tilts_S), 1 / len(tilts_S)) if base_S is None else base_S
    odds_S = base_S * np.exp(tilts_S - tilts_S.max())
    probability_S = odds_S / odds_S.sum()
    log_z = float(np.log(odds_S.sum()) + tilts_S.max())
    kl = max(0.0, float(probability_S @ tilts_S) - log_z)
    return Tilted(probability_S, kl, float(1 / np.square(probability_S).sum()))


def samples_by_prompt(folder: Path) -> list[PromptSamples]:
    """The samples and scores in an evaluation's folder, by prompt, in its order."""
    scores = columns_of(folder)
    found: dict[str, PromptSamples] = {}
    for _, row in read_rows(folder / GENERATIONS):
        group = str(row.get("group", row["prompt"]))  # a prompt of the toy is a group of its own
        held = found.setdefault(group, PromptSamples(group, [], []))
        held.rows.append(row)
        held.scores.append(scores[row["id"]])
    return list(found.values())


def reward_matrix(samples: PromptSamples, axes: Mapping[str, str]) -> Floats:
    """Scores of one prompt's samples by every objective, NaN where unknown, (S, M) in the order of the axes."""
    return np.stack([samples.column(axis) for axis in axes.values()], axis=1)


def describe_weighted(
    prompts: Sequence[WeightedPrompt], outcome: Outcome, *, like: Mapping[str, Any], shares: set[str], knows_kl: bool
) -> None:
    """Metrics of the same names as a sampled policy's, each of a value a prompt, and gains over the same samples.

    Args:
        prompts: the policy.
        outcome: takes the metrics; its axes say which columns are rewards.
        like: the metrics of the reference's own evaluation.
        shares: columns that are shares of yes.
        knows_kl: whether the samples are the reference's own distribution.
    """
    groups = [prompt.samples.group for prompt in prompts]
    scored = [name for name in like if any(name in prompt.samples.scores[0] for prompt in prompts) and name != "kl"]

    def note(name: str, values: Sequence[float | None], *, share: bool = False) -> None:
        interval = share_interval(_within(values), groups) if share else mean_interval(values, groups)
        outcome.metrics[name] = interval.as_record()

    for name in scored:
        note(name, [prompt.mean(prompt.samples.column(name)) for prompt in prompts], share=name in shares)
        objective = name.removesuffix("_reward")
        if name.endswith("_reward"):
            outcome.metrics[f"{objective}_gain"] = _gain(prompts, name, shares=name in shares)
    if "cut" in like:
        note("cut", [_of_rows(prompt, lambda row: row.get("finish") == "length") for prompt in prompts], share=True)
        note("empty", [_of_rows(prompt, lambda row: not has_words(row["response"])) for prompt in prompts], share=True)
    if "over_refusal" in like and "well_formed" in like:  # the toy's own; that of a file is another set of prompts
        asked = [prompt for prompt in prompts if not toy.names_hazard(prompt.samples.group)]
        refused = [_of_rows(one, lambda row: refuses(row["prompt"], row["response"], is_toy=True)) for one in asked]
        interval = share_interval(_within(refused), [one.samples.group for one in asked])
        outcome.metrics["over_refusal"] = interval.as_record()
    if "well_formed" in like:
        formed = [
            _of_rows(prompt, lambda row: toy.is_well_formed(row["prompt"], row["response"])) for prompt in prompts
        ]
        note("well_formed", formed, share=True)
    if not knows_kl:
        say("no KL: generator.temperature and top_p must be 1 to sample the reference")
        return
    note("kl", [prompt.kl for prompt in prompts])
    if "kl_per_token" in like:
        lengths = [prompt.mean(prompt.samples.column("tokens")) or 0.0 for prompt in prompts]
        outcome.metrics["kl_per_token"] = ratio_interval([one.kl for one in prompts], lengths, groups).as_record()


def _of_rows(prompt: WeightedPrompt, value: Any) -> float:
    return float(prompt.probability_S @ np.array([float(value(row)) for row in prompt.samples.rows]))


def _within(values: Sequence[float | None]) -> list[float | None]:
    """Shares without the last bit's rounding above 1."""
    return [None if value is None else min(max(value, 0.0), 1.0) for value in values]


def _gain(prompts: Sequence[WeightedPrompt], name: str, *, shares: bool) -> dict[str, object]:
    before = [float(value) for prompt in prompts for value in prompt.samples.column(name)]
    of_before = [prompt.samples.group for prompt in prompts for _ in prompt.samples.rows]
    after = [prompt.mean(prompt.samples.column(name)) for prompt in prompts]
    of_after = [prompt.samples.group for prompt in prompts]
    return paired_difference((before, of_before), (after, of_after), shares=shares).as_record()


def describe_against_optimum(
    prompts: Sequence[WeightedPrompt],
    outcome: Outcome,
    *,
    toy_data: ToyConfig,
    base: Base,
    cache: Path,
    weights: Mapping[str, tuple[float, str]],
    beta: float,
) -> None:
    """attained_share and kl_to_optimum in the toy, from each prompt's KL and weighted true rewards.

    Args:
        prompts: the policy.
        outcome: takes the metrics.
        toy_data: the world.
        base: the reference.
        cache: where its samples for the exact front lie.
        weights: objective -> (weight, name of its true reward), in the order of the world's objectives.
        beta: KL strength of the optimum.
    """
    by_group = {prompt.samples.group: prompt for prompt in prompts}
    names = toy.prompts("test")
    rewards_PSM = reference_samples(toy_data, base, names, cache=cache)
    excess = []
    for prompt in (by_group[name] for name in names):
        means = [(weight, prompt.mean(prompt.samples.column(gold))) for weight, gold in weights.values()]
        excess.append(prompt.kl - sum(weight * mean for weight, mean in means if mean is not None) / beta)
    used = [weight for weight, _ in weights.values()]
    try:
        outcome.metrics |= against_optimum(np.array(excess), rewards_PSM, used, beta)
    except ValueError as error:  # too few effective samples: the optimum is not known, the run is none the worse
        say(f"no distance to the optimum: {error} (dataset.exact_samples, algorithm.beta)")


def write_chosen(folder: Path, chosen: Sequence[tuple[PromptSamples, int]]) -> None:
    """Write generations.jsonl and scores.jsonl of some samples, without the KL, which a lone response has none of.

    Args:
        folder: the run's.
        chosen: samples of a prompt, and the index of one of them.
    """
    write_jsonl(folder / GENERATIONS, [samples.rows[index] for samples, index in chosen])
    scores = [samples.scores[index] for samples, index in chosen]
    write_jsonl(folder / SCORES, [{key: value for key, value in row.items() if key != "kl"} for row in scores])


def difference_std(rewards: Sequence[Floats]) -> Floats:
    """Standard deviation of each reward's difference between two samples of one prompt, NaN left out, (M,).

    Args:
        rewards: (S, M) of each prompt.
    """
    squares = sum(np.nansum(np.square(one - np.nanmean(one, axis=0)), axis=0) for one in rewards)
    freedom = sum(np.maximum(np.isfinite(one).sum(axis=0) - 1, 0) for one in rewards)
    return np.asarray(np.sqrt(2 * squares / np.maximum(freedom, 1)), dtype=np.float64)
