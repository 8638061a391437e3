"""Rewards as scorers: what a policy says on held-out prompts, scored by every reward that an evaluation names."""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.data.records import Prompt, RankedRow, prompt_as_json
from alignlab.evaluation.measure import GENERATIONS, SCORES, Policy, Sampling, sample, sample_requests
from alignlab.io.atomic import write_jsonl
from alignlab.rewards.base import Reward
from alignlab.runs.folder import RunFolder
from alignlab.runs.progress import say
from alignlab.runs.result import Outcome
from alignlab.stats import mean_interval


@dataclass(frozen=True)
class Said:
    """One response that the policy gave."""

    id: str
    group: str
    """Of its prompt."""
    prompt: Prompt
    response: str


def score_samples(
    policy: Policy,
    run: RunFolder,
    outcome: Outcome,
    rewards: Mapping[str, Reward],
    *,
    rows: Sequence[RankedRow],
    most_prompts: int,
    sampling: Callable[[], Sampling],
) -> None:
    """`OBJECTIVE_reward` of every reward: metrics, and columns of scores.jsonl.

    What `measure` has sampled is scored as it is; elsewhere held-out prompts are sampled.

    Args:
        policy: what is sampled.
        run: times the stages and keeps the records.
        outcome: takes the metrics.
        rewards: objective -> reward.
        rows: where held-out prompts come from.
        most_prompts: how many of them are sampled.
        sampling: how.
    """
    said = _sampled_before(run.path) if "generations" in outcome.artifacts else None
    if said is None:
        said = _sampled(policy, run, outcome, held_out_prompts(rows, most_prompts), sampling())
    columns: dict[str, list[float]] = {}
    for name, one in rewards.items():
        with run.stage("scoring"):
            columns[f"{name}_reward"] = one.score([row.prompt for row in said], [row.response for row in said]).tolist()
        one.release()
    groups = [row.group for row in said]
    for name, values in columns.items():
        outcome.metrics[name] = mean_interval(values, groups).as_record()
    _add_columns(run.path / SCORES, said, columns)
    outcome.artifacts["scores"] = SCORES
    if set(rewards) == set(outcome.axes):
        outcome.axes = {name: f"{name}_reward" for name in outcome.axes}


def held_out_prompts(rows: Sequence[RankedRow], most: int) -> dict[str, Prompt]:
    """Group -> prompt, at most so many, the same ones whatever the order of the rows."""
    prompts = {row.group: row.prompt for row in rows}
    return {group: prompts[group] for group in sorted(prompts)[:most]}


def _sampled(
    policy: Policy, run: RunFolder, outcome: Outcome, prompts: Mapping[str, Prompt], sampling: Sampling
) -> list[Said]:
    """Sample the policy, write down what it says, and how far it is from the reference."""
    encoder, samples = policy.base.encoder, sampling.generator.samples
    requests = sample_requests({group: encoder.prompt_ids(prompt) for group, prompt in prompts.items()}, samples)
    say(f"samples {len(requests)} responses to {len(prompts)} held-out prompts")
    with run.stage("sampling"):
        responses, distance = sample(policy, requests, sampling)
    texts = [encoder.response_text(row.response_ids) for row in responses]
    groups = [group for group in prompts for _ in range(samples)]
    said = [
        Said(request.id, group, prompts[group], text)
        for request, group, text in zip(requests, groups, texts, strict=True)
    ]
    if distance is not None:
        outcome.metrics["kl"] = mean_interval(distance.kl.double().tolist(), groups).as_record()
    write_jsonl(
        run.path / GENERATIONS,
        [{"id": row.id, "prompt": prompt_as_json(row.prompt), "response": row.response} for row in said],
    )
    outcome.artifacts["generations"] = GENERATIONS
    return said


def _sampled_before(folder: Path) -> list[Said]:
    """What `measure` has sampled on the toy, whose prompts are plain texts."""
    rows = [json.loads(line) for line in (folder / GENERATIONS).read_text(encoding="utf-8").splitlines()]
    return [Said(row["id"], row["prompt"], row["prompt"], row["response"]) for row in rows]


def _add_columns(file: Path, said: Sequence[Said], columns: dict[str, list[float]]) -> None:
    known: dict[str, dict[str, Any]] = {}
    if file.exists():
        known = {row["id"]: row for row in map(json.loads, file.read_text(encoding="utf-8").splitlines())}
    write_jsonl(
        file,
        [
            known.get(row.id, {"id": row.id}) | {name: values[place] for name, values in columns.items()}
            for place, row in enumerate(said)
        ],
    )
