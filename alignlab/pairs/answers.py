"""The answers that pairs are made of: sampled once, kept by content, found again whatever scores them."""

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from filelock import FileLock

from alignlab.config.parts import ModelSource
from alignlab.config.schema import GeneratorConfig
from alignlab.data.records import Prompt, group_of, prompt_as_json
from alignlab.engine.sampling.base import Continuation, PrefixRequest
from alignlab.errors import ConfigError
from alignlab.io.hashes import text_id
from alignlab.io.kept import writing
from alignlab.io.records import Records, is_finished, renewable
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.prerequisites.policy import policy_under_test
from alignlab.runs.progress import say

ANSWERS = "answers.jsonl"


@dataclass(frozen=True)
class Sampler:
    """Who answers, and how."""

    model: ModelSource
    model_id: Mapping[str, Any]
    """Settings and fingerprints that say which model it is, as JSON values."""
    sources: tuple[str | None, ...]
    """Adapters on the model that answer; None for the model itself."""
    source_ids: tuple[str, ...]
    """Fingerprints of the adapters; empty for the model itself."""
    generator: GeneratorConfig
    seed: int
    max_length: int
    """Longest prompt plus answer, tokens."""

    def seed_of(self, index: int) -> int:
        """Seed of one source's answers: without its own, an adapter would say again what the model said before it."""
        source = self.source_ids[index]
        return self.seed if not source else int(text_id(str(self.seed), source), 16) % 2**31

    def made_for(self, prompts: Sequence[str]) -> dict[str, Any]:
        """Everything that answers depend on."""
        return {
            "model": dict(self.model_id),
            "sources": list(self.source_ids),
            "sampling": [self.generator.kind, self.generator.temperature, self.generator.top_p],
            "samples": self.generator.samples,
            "longest": self.generator.max_new_tokens,
            "max_length": self.max_length,
            "seed": self.seed,
            "prompts": hashlib.sha256(json.dumps(sorted(prompts)).encode()).hexdigest(),
            "white_space": "kept",  # answers were stripped before
        }


def sample_answers(
    prompts: Mapping[str, tuple[str, Prompt]], encoder: PromptEncoder, sampler: Sampler, cache: Path
) -> tuple[Path, int]:
    """File of every answer, sorted by id, and the number that this call drew; a killed run's answers are kept.

    Args:
        prompts: id of a prompt -> its split and the prompt.
        encoder: the model's tokenizer and template.
        sampler: who answers, and how.
        cache: folder that all runs share.
    """
    made_for = sampler.made_for(list(prompts))
    folder = cache / "answers" / hashlib.sha256(json.dumps(made_for, sort_keys=True).encode()).hexdigest()[:16]
    if is_finished(folder / ANSWERS, made_for=made_for):
        return folder / ANSWERS, 0
    with writing(cache, folder):
        folder.mkdir(parents=True, exist_ok=True)
    names = {
        request: (prompt, source)
        for source in range(len(sampler.sources))
        for prompt in prompts
        for request in [f"{prompt}-{source}"]
    }
    expected = [f"{name}-{number}" for name in names for number in range(sampler.generator.samples)]
    opened = partial(renewable, folder / ANSWERS, expected, made_for=made_for, say=say)
    with FileLock(folder / "sampling.lock"), opened() as records:
        missing = set(records.missing())
        if missing and len(missing) < len(expected):
            say(f"answers: {len(expected) - len(missing)} of {len(expected)} are known from before")
        for index, source in enumerate(sampler.sources if missing else ()):
            own = [name for name in names if names[name][1] == index]
            requests = [
                PrefixRequest(name, encoder.prompt_ids(prompts[names[name][0]][1]), sampler.generator.samples, known)
                for name in own
                if len(known := _known(name, missing, sampler.generator.samples)) < sampler.generator.samples
            ]
            _draw(requests, source, index, sampler, encoder, prompts, names, records)
        records.finish()
    return folder / ANSWERS, len(missing)


def _known(name: str, missing: set[str], samples: int) -> frozenset[int]:
    return frozenset(number for number in range(samples) if f"{name}-{number}" not in missing)


def _draw(
    requests: list[PrefixRequest],
    source: str | None,
    index: int,
    sampler: Sampler,
    encoder: PromptEncoder,
    prompts: Mapping[str, tuple[str, Prompt]],
    names: Mapping[str, tuple[str, int]],
    records: Records,
) -> None:
    """Sample what is missing of one source; a response is text that encodes to the tokens that were drawn."""
    if not requests:
        return
    prefixes = {request.id: request.prefix_ids for request in requests}
    with policy_under_test(sampler.model, source, sampler.generator, key="algorithm.sources") as policy:

        def note(name: str, number: int, continuation: Continuation) -> None:
            """Keep one answer as a record."""
            prompt_id = names[name][0]
            split, prompt = prompts[prompt_id]
            records.add(
                {
                    "id": f"{name}-{number}",
                    "prompt_id": prompt_id,
                    "split": split,
                    "source": index,
                    "prompt": prompt_as_json(prompt),
                    "response": encoder.response_text(Encoded(prefixes[name], continuation.token_ids)),
                    "finish": continuation.finish,
                    "tokens": len(continuation.token_ids),
                }
            )

        policy.generate(requests, sampler.generator, note, seed=sampler.seed_of(index), label="answers")


def fitting_prompts(
    prompts: Mapping[str, Sequence[Prompt]], encoder: PromptEncoder, *, max_length: int, max_new_tokens: int
) -> tuple[dict[str, tuple[str, Prompt]], int]:
    """Id -> (split, prompt) of the prompts that leave room for an answer, and the number of the others.

    Args:
        prompts: split -> prompts.
        encoder: the model's tokenizer and template.
        max_length: longest prompt plus answer, tokens.
        max_new_tokens: longest answer, tokens.

    Raises:
        ConfigError: if none leaves room.
    """
    every = {group_of(prompt): (split, prompt) for split, found in prompts.items() for prompt in found}
    lengths = {key: len(encoder.prompt_ids(prompt)) for key, (_, prompt) in every.items()}
    fitting = {key: given for key, given in every.items() if lengths[key] + max_new_tokens <= max_length}
    too_long = len(every) - len(fitting)
    if too_long:
        what = f"{too_long} of {len(every)} prompts leave no room for generator.max_new_tokens={max_new_tokens}"
        if not fitting:
            longest = f"the shortest takes {min(lengths.values())} tokens"
            raise ConfigError(f"trainer.max_length={max_length}: {what}; {longest}")
        say(f"trainer.max_length={max_length}: {what}, left out")
    return fitting, too_long


def answers_of(path: Path) -> Iterator[dict[str, Any]]:
    """The records of a file of answers."""
    with path.open(encoding="utf-8") as stream:
        for line in stream:
            yield json.loads(line)
