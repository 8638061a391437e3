"""Which requests a synthesis run takes: no copies, nothing that is measured on, its share of the rest."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from alignlab.config.schema import DatasetConfig, RunConfig, SynthesisConfig
from alignlab.data.files import data_files, read_rows
from alignlab.data.near_duplicates import near_duplicates_of, without_near_duplicates
from alignlab.data.rankings import BENIGN, HARMFUL
from alignlab.data.records import HarmRequest, prompt_text
from alignlab.data.requests import benign_requests, control_file, read_requests
from alignlab.data.splits import normalised
from alignlab.errors import ConfigError

_ALIKE_PROMPTS = 0.8
"""Similarity from which on a prompt counts as one of an evaluation set, where algorithm.near_duplicates is null."""


def choose_requests(config: RunConfig) -> tuple[dict[str, list[HarmRequest]], Counter[str]]:
    """Kind -> this run's share of the requests, and why how many of the whole were left out, the same in every share.

    Raises:
        ConfigError: if none is left.
    """
    algorithm = config.algorithm
    assert isinstance(algorithm, SynthesisConfig)
    wanted = {HARMFUL: read_requests(config.dataset)}
    control = algorithm.control
    wanted[BENIGN] = control_file(Path(control)) if control else benign_requests(config.dataset)
    forbidden = _held_out_prompts(config)
    left_out: Counter[str] = Counter()
    chosen = {}
    for kind, requests in wanted.items():
        kept = _without_repeats(requests, algorithm, left_out)
        alike = algorithm.near_duplicates or _ALIKE_PROMPTS
        known = near_duplicates_of([prompt_text(request.prompt) for request in kept], forbidden, alike)
        left_out["like a held-out prompt"] += sum(known)
        kept = [request for request, is_known in zip(kept, known, strict=True) if not is_known]
        chosen[kind] = kept[algorithm.shard :: algorithm.num_shards]
    if not any(chosen.values()):
        counts = ", ".join(f"{count} {reason}" for reason, count in left_out.items() if count)
        raise ConfigError(f"dataset={config.dataset.name}: no request is left ({counts or 'there are none'})")
    return chosen, left_out


def _without_repeats(
    requests: Sequence[HarmRequest], algorithm: SynthesisConfig, left_out: Counter[str]
) -> list[HarmRequest]:
    texts = [f"{prompt_text(request.prompt)}\n{request.harmful_response}" for request in requests]
    once = {normalised(text): request for text, request in reversed(list(zip(texts, requests, strict=True)))}
    kept = [request for text, request in zip(texts, requests, strict=True) if once[normalised(text)] is request]
    left_out["exact duplicates"] += len(requests) - len(kept)
    if algorithm.near_duplicates is None:
        return kept
    new = without_near_duplicates(
        (f"{prompt_text(r.prompt)}\n{r.harmful_response}" for r in kept), algorithm.near_duplicates
    )
    left_out["near duplicates"] += len(kept) - sum(new)
    return [request for request, is_new in zip(kept, new, strict=True) if is_new]


def _held_out_prompts(config: RunConfig) -> list[str]:
    """The prompts that must not be trained on: those of the files that are named, and of the own held-out split."""
    algorithm, dataset = config.algorithm, config.dataset
    assert isinstance(algorithm, SynthesisConfig)
    prompts: list[str] = []
    for path in algorithm.held_out:
        for file in data_files(path, key="algorithm.held_out"):
            for place, row in read_rows(file.path):
                if not isinstance(row.get("prompt"), str):
                    raise ConfigError(f"{place} prompt: must be text")
                prompts.append(row["prompt"])
    if dataset.split == "train":
        held_out: DatasetConfig = dataclasses.replace(dataset, split="test", max_rows=None)
        own = [*read_requests(held_out), *benign_requests(held_out)]
        prompts += [prompt_text(request.prompt) for request in own]
    return list(dict.fromkeys(prompts))
