"""From settings to the pairs of a policy's own answers: who samples, who scores, what is selected.

Shape letters: N answers, M objectives.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from alignlab.config.parts import ModelSource, RewardSource
from alignlab.config.schema import GeneratorConfig, PairsConfig, ServerGeneratorConfig
from alignlab.data.readers.prompts import prompt_in
from alignlab.data.records import Prompt, as_said
from alignlab.errors import ConfigError
from alignlab.io.records import Records
from alignlab.models.adapters import adapter_id
from alignlab.models.base import Base
from alignlab.pairs.answers import Sampler
from alignlab.pairs.checks import check_scores, correlations, within_correlation
from alignlab.pairs.comparable import Comparable
from alignlab.pairs.export import PairRow, pair_row
from alignlab.pairs.select import ScoredAnswers, Selection, labelled_pairs, spread_within
from alignlab.prerequisites.models import prompt_encoder, reference
from alignlab.prerequisites.rewards import RewardParts, reward
from alignlab.rewards.base import Reward
from alignlab.rewards.joined import JoinedReward
from alignlab.rewards.posting import EndpointError

Floats = NDArray[np.float64]
SCORED_AT_ONCE = 256
"""Answers between two writes: what a scorer that fails costs at most."""
_MODEL_KEYS = ("kind", "path", "revision", "adapter", "dtype", "quantization", "prompt_template", "architecture")
"""Settings of a model that its answers depend on."""
_LOCAL = {"path", "adapter", "base_url", "api_key_env", "batch_size", "workers", "sources"}
"""Keys that name files and machines, of no use to a reader of the card elsewhere."""


def sampler_of(
    model: ModelSource, generator: GeneratorConfig, adapters: Sequence[str], *, seed: int, max_length: int
) -> Sampler:
    """Who answers in a run, and how.

    Args:
        model: the run's.
        generator: how it is sampled.
        adapters: of the policies that answer; none for the model alone.
        seed: of the samples.
        max_length: longest prompt plus answer, tokens.
    """
    return Sampler(
        model=model,
        model_id=_model_id(model, generator),
        sources=tuple(adapters) or (None,),
        source_ids=tuple(adapter_id(Path(one)) if Path(one).is_dir() else one for one in adapters) or ("",),
        generator=generator,
        seed=seed,
        max_length=max_length,
    )


def _model_id(model: ModelSource, generator: GeneratorConfig) -> dict[str, Any]:
    settings = asdict(model.settings)
    known = {key: settings[key] for key in _MODEL_KEYS if key in settings}
    served = {}
    if isinstance(generator, ServerGeneratorConfig):
        served = {"server": [generator.base_url, generator.model], "extra_body": generator.extra_body or None}
        served = {key: value for key, value in served.items() if value}
    made = {} if model.scratch is None else {"made": reference(model).id}
    return {**known, "files": list(model.files), "bf16": model.bf16, **served, **made}


@dataclass
class Scored:
    """Scores of comparable answers."""

    names: list[str]
    scores_NM: Floats
    asked: dict[str, int]
    """Objective -> answers that its scorer was asked about, rather than an earlier attempt of the run."""
    notes: dict[str, dict[str, float]] = field(default_factory=dict)
    """Correlations, within prompts, of the scorers with each other and with length."""


def score_answers(
    scorers: Mapping[str, RewardSource],
    parts: RewardParts,
    answers: Comparable,
    folder: Path,
    *,
    adapters: Sequence[str],
) -> Scored:
    """Every answer's score by every objective, kept in the run folder as they come.

    Args:
        scorers: of the run, by objective.
        parts: what they are built with.
        answers: of all prompts.
        folder: of the run.
        adapters: of the policies that answered, whose own runs may hold a joined scorer's units.

    Raises:
        ConfigError: `scorers.NAME: ...` where a scorer gives no usable scores.
    """
    rows = answers.answers
    prompts = [prompt_in({"prompt": row["prompt"]}) for row in rows]
    ids, groups = ([row[key] for row in rows] for key in ("id", "prompt_id"))
    texts = [as_said(row["response"], row["finish"]) for row in rows]
    columns, asked = [], {}
    for name, source in scorers.items():
        one = reward(source, parts)
        if isinstance(one, JoinedReward):
            encoded = parts.base.encoder.encode_all(list(zip(prompts, texts, strict=True)), sampled=True)
            one = one.scaled(encoded, folder, [Path(adapter).parent for adapter in adapters])
        path = folder / "scores" / f"{name}.jsonl"
        column, asked[name] = kept_scores(path, name, one, ids, list(zip(prompts, texts, strict=True)))
        columns.append(column)
        one.release()  # two of 7B at once are too much for most machines
    names = list(scorers)
    scored = Scored(names, np.stack(columns, axis=1), asked)
    check_scores(scored.scores_NM, names, ids, groups)
    scored.notes["correlation"] = correlations(scored.scores_NM, names, groups)
    lengths_N = np.array([float(row["tokens"]) for row in rows])
    with_length = {name: within_correlation(scored.scores_NM[:, m], lengths_N, groups) for m, name in enumerate(names)}
    scored.notes["correlation with length"] = {name: value for name, value in with_length.items() if value is not None}
    return scored


def kept_scores(
    path: Path, name: str, one: Reward, ids: Sequence[str], texts: Sequence[tuple[Prompt, str]]
) -> tuple[Floats, int]:
    """One scorer's scores, (N,), and how many were asked for: what an earlier attempt has scored is found again.

    Args:
        path: file of the scores; grows as they come.
        name: the objective.
        one: the scorer.
        ids: of the answers.
        texts: prompt and answer each.

    Raises:
        ConfigError: `scorers.NAME: ...` where a score is not finite, or an endpoint does not answer.
    """
    with Records(path, ids, made_for={"scorer": one.id}) as records:
        missing = set(records.missing())
        rest = [(key, text) for key, text in zip(ids, texts, strict=True) if key in missing]
        for start in range(0, len(rest), SCORED_AT_ONCE):
            part = rest[start : start + SCORED_AT_ONCE]
            try:
                scores = one.score([prompt for _, (prompt, _) in part], [text for _, (_, text) in part]).double()
            except (ArithmeticError, ValueError, EndpointError) as error:
                kept = f"{len(ids) - len(records.missing())} of {len(ids)} scores are kept"
                raise ConfigError(f"scorers.{name}: {error}; {kept}, rerun the same command to resume") from None
            wrong = torch.isinf(scores).nonzero().flatten().tolist()
            if wrong:
                raise ConfigError(f"scorers.{name}: the score of answer {part[wrong[0]][0]} is {scores[wrong[0]]:g}")
            for (key, _), score in zip(part, scores.tolist(), strict=True):
                records.add({"id": key, "score": None if math.isnan(score) else score})  # a judge's "unscored"
        records.finish()
        known = {row["id"]: row["score"] for row in records.rows()}
    return np.array([known[key] for key in ids], dtype=float), len(missing)


def answering_base(model: ModelSource, generator: GeneratorConfig) -> Base:
    """The run's model; where a server holds it, its tokenizer alone, which is all that scorers of texts need."""
    if not isinstance(generator, ServerGeneratorConfig):
        return reference(model)
    encoder = prompt_encoder(model)
    return Base(None, encoder.tokenizer, encoder, "", "a server's")


def pair_rows(
    algorithm: PairsConfig, weights: Mapping[str, float], answers: Comparable, scored: Scored, *, seed: int
) -> list[PairRow]:
    """The selected and labelled pairs, prompt by prompt.

    Args:
        algorithm: how pairs are selected and labelled.
        weights: of the objectives.
        answers: of all prompts.
        scored: their scores by objective.
        seed: of drawn labels.

    Raises:
        ConfigError: if there is none.
    """
    selection = Selection(algorithm.select, algorithm.labels, algorithm.temperature, algorithm.min_margin, seed=seed)
    groups = [row["prompt_id"] for row in answers.answers]
    units_M = spread_within(scored.scores_NM, groups)
    weights_M = np.array([weights.get(name, 0.0) for name in scored.names])
    rows, start = [], 0
    for prompt_id, own in answers.by_prompt.items():
        scores_NM = scored.scores_NM[start : start + len(own)]
        start += len(own)
        given = ScoredAnswers(prompt_id, tuple(answer["id"] for answer in own), scores_NM)
        known = [[None if np.isnan(score) else float(score) for score in line] for line in scores_NM]
        pairs = labelled_pairs(given, selection, units_M, weights_M)
        answers.left_out["prompts without a pair: ties, margins or no agreement"] += not pairs
        rows += [pair_row(own, known, pair, scored.names) for pair in pairs]
    if not rows:
        wanted = f"algorithm.select={algorithm.select} algorithm.min_margin={algorithm.min_margin:g}"
        raise ConfigError(f"{wanted}: leaves no pair of {len(answers.by_prompt)} prompts")
    return rows


def card_settings(record: Mapping[str, Any], inputs: Mapping[str, str]) -> Mapping[str, Any]:
    """Settings for the card, without paths and keys.

    Args:
        record: every setting of the run as plain values.
        inputs: fingerprints of its files.
    """
    groups = {name: record[name] for name in ("model", "dataset", "algorithm", "generator")}
    plain = {name: {key: value for key, value in group.items() if key not in _LOCAL} for name, group in groups.items()}
    plain["scorers"] = {name: {"kind": one["kind"]} for name, one in record["scorers"].items()}
    return {**plain, "seed": record["seed"], "inputs": dict(inputs)}
