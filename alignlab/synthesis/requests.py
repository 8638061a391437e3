"""Choose the requests of a synthesis run: no copies, nothing that is evaluated on, its shard of the rest."""

import dataclasses
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from alignlab.config.schema import DatasetConfig, SynthesisConfig
from alignlab.data.files import data_files, read_rows
from alignlab.data.near_duplicates import near_duplicates_of, without_near_duplicates
from alignlab.data.rankings import BENIGN, HARMFUL
from alignlab.data.records import HarmRequest, prompt_text
from alignlab.data.requests import benign_requests, control_file, read_requests
from alignlab.data.texts import normalised
from alignlab.errors import ConfigError

_SIMILAR_PROMPTS = 0.8
"""Similarity from which on a prompt counts as one of an evaluation set, where algorithm.near_duplicates is null."""


@dataclass
class ChosenRequests:
    """The requests of one shard."""

    by_kind: dict[str, list[HarmRequest]] = field(default_factory=dict)
    """harmful and benign."""
    left_out: Counter[str] = field(default_factory=Counter)
    """Reason -> requests that were left out before the shards were made: the same in every shard."""


def choose_requests(dataset: DatasetConfig, settings: SynthesisConfig) -> ChosenRequests:
    """Choose this shard's requests.

    Raises:
        ConfigError: if none is left.
    """
    wanted = {HARMFUL: read_requests(dataset)}
    wanted[BENIGN] = control_file(Path(settings.control)) if settings.control else benign_requests(dataset)
    held_out = _held_out_prompts(dataset, settings.held_out)
    threshold = settings.near_duplicates or _SIMILAR_PROMPTS
    chosen = ChosenRequests()
    for kind, requests in wanted.items():
        kept = _without_repeats(requests, settings.near_duplicates, chosen.left_out)
        known = near_duplicates_of([prompt_text(request.prompt) for request in kept], held_out, threshold)
        chosen.left_out["like a held-out prompt"] += sum(known)
        kept = [request for request, is_known in zip(kept, known, strict=True) if not is_known]
        chosen.by_kind[kind] = kept[settings.shard :: settings.num_shards]
    if not any(chosen.by_kind.values()):
        counts = ", ".join(f"{count} {reason}" for reason, count in chosen.left_out.items() if count)
        raise ConfigError(f"dataset={dataset.name}: no request is left ({counts or 'there are none'})")
    return chosen


def _without_repeats(
    requests: Sequence[HarmRequest], near_duplicates: float | None, left_out: Counter[str]
) -> list[HarmRequest]:
    texts = [f"{prompt_text(request.prompt)}\n{request.harmful_response}" for request in requests]
    once = {normalised(text): request for text, request in reversed(list(zip(texts, requests, strict=True)))}
    kept = [request for text, request in zip(texts, requests, strict=True) if once[normalised(text)] is request]
    left_out["exact duplicates"] += len(requests) - len(kept)
    if near_duplicates is None:
        return kept
    new = without_near_duplicates((f"{prompt_text(r.prompt)}\n{r.harmful_response}" for r in kept), near_duplicates)
    left_out["near duplicates"] += len(kept) - sum(new)
    return [request for request, is_new in zip(kept, new, strict=True) if is_new]


def _held_out_prompts(dataset: DatasetConfig, paths: Sequence[str]) -> list[str]:
    """Prompts that must not be trained on: those of the named files, and of the data set's own held-out split."""
    prompts: list[str] = []
    for path in paths:
        for file in data_files(path, key="algorithm.held_out"):
            for location, row in read_rows(file.path):
                if not isinstance(row.get("prompt"), str):
                    raise ConfigError(f"{location} prompt: must be text")
                prompts.append(row["prompt"])
    if dataset.split == "train":
        held_out: DatasetConfig = dataclasses.replace(dataset, split="test", max_rows=None)
        own = [*read_requests(held_out), *benign_requests(held_out)]
        prompts += [prompt_text(request.prompt) for request in own]
    return list(dict.fromkeys(prompts))
