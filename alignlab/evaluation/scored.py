"""Rewards as scorers: what a policy says on held-out prompts, scored by every reward that an evaluation names."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from alignlab.config.schema import EvaluateConfig, RunConfig
from alignlab.data.records import Prompt, RankedRow, prompt_as_json
from alignlab.engine.cache.scores import ScoreCache
from alignlab.engine.sampling.sample import SampleRequest
from alignlab.evaluation.measure import sample
from alignlab.io.atomic import write_jsonl
from alignlab.models.base import Base
from alignlab.prerequisites.reference import ranked_rows
from alignlab.prerequisites.reward_report import prepared_rewards
from alignlab.runs.folder import Outcome, RunFolder
from alignlab.runs.progress import say
from alignlab.stats import mean_interval

GENERATIONS, SCORES = "generations.jsonl", "scores.jsonl"


@dataclass(frozen=True)
class Said:
    """One response that the policy gave."""

    id: str
    group: str
    """Of its prompt."""
    prompt: Prompt
    response: str


def score_samples(
    config: RunConfig, run: RunFolder, outcome: Outcome, *, base: Base, adapter: Path | None, cache: ScoreCache
) -> None:
    """`OBJECTIVE_reward` of every reward in algorithm.rewards: metrics, and columns of scores.jsonl.

    What `measure` has sampled is scored as it is; elsewhere algorithm.prompts held-out prompts are sampled.
    """
    assert isinstance(config.algorithm, EvaluateConfig)
    with run.stage("prerequisites"):
        ranked = ranked_rows(config, base, config.dataset.split)
        trained_in = () if adapter is None else (adapter.parent,)
        rewards = prepared_rewards(config, outcome, run.path, base=base, ranked=ranked, cache=cache, also_in=trained_in)
    said = _sampled_before(run.path) if "generations" in outcome.artifacts else None
    if said is None:
        said = _sampled(config, run, outcome, base, adapter, ranked)
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
    if set(rewards) == set(config.dataset.objectives):
        outcome.axes = {name: f"{name}_reward" for name in config.dataset.objectives}


def held_out_prompts(rows: Sequence[RankedRow], most: int) -> dict[str, Prompt]:
    """Group -> prompt, at most so many, the same ones whatever the order of the rows."""
    prompts = {row.group: row.prompt for row in rows}
    return {group: prompts[group] for group in sorted(prompts)[:most]}


def _sampled(
    config: RunConfig, run: RunFolder, outcome: Outcome, base: Base, adapter: Path | None, ranked: Sequence[RankedRow]
) -> list[Said]:
    """Samples the policy, writes down what it says, and how far it is from the reference."""
    assert isinstance(config.algorithm, EvaluateConfig)
    rows = ranked_rows(config, base, config.dataset.eval_split) if config.dataset.split is not None else ranked
    prompts = held_out_prompts(rows, config.algorithm.prompts)
    places = [(group, number) for group in prompts for number in range(config.generator.samples)]
    requests = [
        SampleRequest(f"{group}/{number}", ids)
        for group, ids in ((group, base.encoder.prompt_ids(prompt)) for group, prompt in prompts.items())
        for number in range(config.generator.samples)
    ]
    say(f"samples {len(requests)} responses to {len(prompts)} held-out prompts")
    with run.stage("sampling"):
        responses, distance = sample(config, base, adapter, requests)
    texts = [base.encoder.response_text(row.response_ids) for row in responses]
    said = [
        Said(f"{group}/{number}", group, prompts[group], text)
        for (group, number), text in zip(places, texts, strict=True)
    ]
    if distance is not None:
        groups = [row.group for row in said]
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
