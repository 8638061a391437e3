"""The toy's preference pairs and exact-front samples: drawn from the reference, labelled by the gold rewards."""

import hashlib
import json
import math
import random
from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from alignlab.config.plan import TOY_TOKENS
from alignlab.config.schema import LocalGeneratorConfig, ToyConfig
from alignlab.data.worlds import toy
from alignlab.engine.sampling.generate import stop_tokens
from alignlab.engine.sampling.sample import SampleRequest, sample_responses
from alignlab.io.atomic import write_array, write_jsonl
from alignlab.io.kept import keep, record_hash, unlike_its_hash
from alignlab.models.base import Base
from alignlab.runs.progress import say

BATCH_SIZE = 1024
"""Responses sampled at once."""


def toy_pairs_file(dataset: ToyConfig, base: Base, cache: Path) -> Path:
    """A JSONL file in PKU-SafeRLHF's columns, in the cache; made when it is not there.

    Two responses of the reference to one prompt; each objective's label is a Bradley-Terry draw at its gold rewards.

    Args:
        dataset: the toy's settings.
        base: the reference, which is sampled.
        cache: root of what runs share.
    """
    labels = {name: [objective.label, objective.gold] for name, objective in dataset.objectives.items()}
    path = _cached(cache, base, "pairs", [dataset.pairs, dataset.seed, labels], ".jsonl")

    def make() -> None:
        """Sample and write the pairs."""
        say(f"needs preference pairs: sampling {dataset.pairs} from the reference")
        write_jsonl(path, _draw_pairs(dataset, base))
        record_hash(path)

    keep(path, cache=cache, fault=unlike_its_hash, make=make, say=say)
    return path


def reference_samples(dataset: ToyConfig, base: Base, prompts: Sequence[str], *, cache: Path) -> NDArray[np.float64]:
    """Gold rewards of dataset.exact_samples reference samples a prompt, shape (P, S, M); cached.

    Args:
        dataset: the toy's settings.
        base: the reference.
        prompts: of the toy.
        cache: root of what runs share.
    """
    gold = [str(objective.gold) for objective in dataset.objectives.values()]
    path = _cached(cache, base, "exact", [dataset.exact_samples, gold, list(prompts)], ".npy")

    def make() -> None:
        """Sample, score and write the array."""
        say(f"needs the exact front: sampling the reference {dataset.exact_samples} times a held-out prompt")
        texts = _sample_texts(base, list(prompts), dataset.exact_samples, "exact", "exact front")
        values = [
            [[toy.GOLD[name](prompt, text) for name in gold] for text in group]
            for prompt, group in zip(prompts, texts, strict=True)
        ]
        write_array(path, np.array(values))
        record_hash(path)

    keep(path, cache=cache, fault=unlike_its_hash, make=make, say=say)
    loaded: NDArray[np.float64] = np.load(path, allow_pickle=False)
    return loaded


def _draw_pairs(dataset: ToyConfig, base: Base) -> list[dict[str, object]]:
    prompts = toy.all_prompts()
    per_prompt = math.ceil(dataset.pairs / len(prompts))
    groups = _sample_texts(base, prompts, 2 * per_prompt, f"pairs {dataset.seed}", "preference pairs")
    rng = random.Random(f"labels {dataset.seed}")
    rows = [
        _labelled(prompt, group[2 * index], group[2 * index + 1], dataset, rng)
        for index in range(per_prompt)
        for prompt, group in zip(prompts, groups, strict=True)
    ]
    return rows[: dataset.pairs]


def _labelled(prompt: str, first: str, second: str, dataset: ToyConfig, rng: random.Random) -> dict[str, object]:
    row: dict[str, object] = {"prompt": prompt, "response_0": first, "response_1": second}
    for objective in dataset.objectives.values():
        if objective.label is None:
            continue
        gold = toy.GOLD[str(objective.gold)]
        chance_of_first = 1 / (1 + math.exp(gold(prompt, second) - gold(prompt, first)))
        row[str(objective.label)] = 0 if rng.random() < chance_of_first else 1
    return row


def _sample_texts(base: Base, prompts: Sequence[str], samples: int, purpose: str, label: str) -> list[list[str]]:
    """`samples` responses of the reference to each prompt."""
    requests = [
        SampleRequest(f"{purpose}/{prompt}/{number}", ids)
        for prompt, ids in ((prompt, base.encoder.prompt_ids(prompt)) for prompt in prompts)
        for number in range(samples)
    ]
    generator = LocalGeneratorConfig(
        kind="transformers",
        samples=samples,
        prompts=len(prompts),
        temperature=1.0,  # the reference itself: any other setting samples another policy
        top_p=1.0,
        max_new_tokens=TOY_TOKENS,
        batch_size=BATCH_SIZE,
    )
    rows = sample_responses(
        base.model,
        requests,
        config=generator,
        seed=0,
        stops=stop_tokens(base.model, base.encoder),
        label=label,
    )
    texts = [base.encoder.response_text(row).strip() for row in rows]
    return [texts[start : start + samples] for start in range(0, len(texts), samples)]


def _cached(cache: Path, base: Base, what: str, made_of: list[object], suffix: str) -> Path:
    key = json.dumps([base.id, toy.WORLD_VERSION, made_of], sort_keys=True)
    return cache / "toy" / f"{what}-{hashlib.sha256(key.encode()).hexdigest()[:12]}{suffix}"
