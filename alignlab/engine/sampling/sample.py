"""Sampling responses to prompts with the run's own model: a response's randomness comes from its id alone."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from alignlab.config.schema import LocalGeneratorConfig
from alignlab.engine.sampling.draw import Sampling
from alignlab.engine.sampling.generate import decode
from alignlab.engine.sampling.local import DecodeSettings
from alignlab.engine.sampling.prefixes import Branch
from alignlab.models.prompts import Encoded
from alignlab.runs.progress import progress


@dataclass(frozen=True)
class SampleRequest:
    """One response to draw."""

    id: str
    prompt_ids: list[int]


def sample_responses(
    model: Any,
    requests: Sequence[SampleRequest],
    *,
    config: LocalGeneratorConfig,
    seed: int,
    stops: frozenset[int],
    label: str,
) -> list[Encoded]:
    """Draws one response for every request, in the order given; each ends with a stop token unless the limit cuts it.

    Requests with one prompt share its prefill.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        requests: what to answer, each with an id of its own.
        config: temperature, top_p, length and batch size.
        seed: changes every draw.
        stops: tokens that end a response.
        label: what the progress bar says.
    """
    drawn: dict[int, Encoded] = {}
    settings = DecodeSettings(Sampling(config.temperature, config.top_p), config.max_new_tokens, seed, stops)
    branches = [Branch(request.id, tuple(request.prompt_ids), number, 0) for number, request in enumerate(requests)]
    with progress(label, len(requests)) as bar:

        def finished(branch: Branch, tokens: list[int]) -> None:
            drawn[branch.request] = Encoded(requests[branch.request].prompt_ids, tokens)
            bar.advance()

        decode(model, branches, settings=settings, batch_size=config.batch_size, finished=finished)
    return [drawn[number] for number in range(len(requests))]
