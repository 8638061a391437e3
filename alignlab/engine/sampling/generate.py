"""Decoding, here or on a server: prefixes and settings in, continuations out, each as soon as it is known."""

from collections.abc import Sequence
from typing import Any

import torch

from alignlab.config.schema import GeneratorConfig, LocalGeneratorConfig, ServerGeneratorConfig
from alignlab.engine.memory import sequence_budget
from alignlab.engine.models import causal_lm
from alignlab.engine.sampling.base import Continuation, OnDone, PrefixRequest
from alignlab.engine.sampling.draw import Sampling
from alignlab.engine.sampling.local import Decoder, DecodeSettings, Finished
from alignlab.engine.sampling.mixture import copies_of
from alignlab.engine.sampling.plain import PlainDecoder
from alignlab.engine.sampling.prefixes import Branch, branches_of, shared_prefixes_of
from alignlab.engine.sampling.probe import shares_prefixes
from alignlab.engine.sampling.server import ask_server
from alignlab.models.prompts import PromptEncoder, text_after
from alignlab.runs.progress import progress, say


def stop_tokens(model: Any, encoder: PromptEncoder) -> frozenset[int]:
    """What ends a turn: the template's end token, which training appends, the tokenizer's EOS, and the model's list."""
    own = getattr(causal_lm(model), "generation_config", None)
    listed = getattr(own, "eos_token_id", None)
    more = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return frozenset({encoder.end_id, int(encoder.tokenizer.eos_token_id), *map(int, more)})


def decode(
    model: Any, branches: Sequence[Branch], *, settings: DecodeSettings, batch_size: int, finished: Finished
) -> None:
    """Decode every branch; where memory runs out, continue with half as many at once.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        branches: the samples to draw.
        settings: how. Equal settings and names draw equal tokens; only where two tokens are as good as equally probable
            can the rounding of the others in the batch tip the scale.
        batch_size: most branches at once; the free memory limits them further.
        finished: called with every branch as it ends.

    Raises:
        ValueError: if two branches have one name, or a prefix is empty.
        torch.OutOfMemoryError: if a single branch does not fit.
    """
    kind = Decoder if shares_prefixes(model) else PlainDecoder
    batch_size = min(batch_size, sequence_budget(model, tokens=_tokens_each(branches, settings) * copies_of(model)))
    known: set[str] = set()

    def note(branch: Branch, tokens: list[int]) -> None:
        known.add(branch.name)
        finished(branch, tokens)

    while True:
        prefixes = shared_prefixes_of([branch for branch in branches if branch.name not in known])
        try:
            return kind(model, settings, batch_size=batch_size, finished=note).run(prefixes)
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            torch.cuda.empty_cache()
            say(f"out of memory: goes on with {batch_size} samples at once (generator.batch_size)")


def _tokens_each(branches: Sequence[Branch], settings: DecodeSettings) -> int:
    """Keys and values that a branch adds to memory: of its own tokens, and its part of the prefixes'."""
    shared = sum(len(prefix.token_ids) for prefix in shared_prefixes_of(branches))
    return settings.max_new_tokens + shared // max(len(branches), 1)


def generate(
    model: Any,
    requests: Sequence[PrefixRequest],
    *,
    config: GeneratorConfig,
    seed: int,
    encoder: PromptEncoder,
    on_done: OnDone | None = None,
    label: str = "generating",
) -> dict[str, list[Continuation]]:
    """Continuations of every request, by id, in the order of their numbers; known samples are left out.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter; None if a server has it.
        requests: what to continue, and how often.
        config: sampling settings, length, batch size or server. The request says how many samples, not the config.
        seed: with a sample's id it makes its randomness.
        encoder: the model's tokenizer and template.
        on_done: told of every continuation as soon as it is known, in this thread.
        label: what the progress bar says.

    Raises:
        ValueError: if two requests have one id, or a prefix is empty.
        ConfigError, NoAnswer: from a server.
    """
    found: dict[str, dict[int, Continuation]] = {request.id: {} for request in requests}
    with progress(label, sum(1 for request in requests for _ in request.missing())) as bar:

        def note(request_id: str, sample: int, continuation: Continuation) -> None:
            found[request_id][sample] = continuation
            if on_done is not None:
                on_done(request_id, sample, continuation)
            bar.advance()

        match config:
            case ServerGeneratorConfig():
                ask_server(requests, config=config, seed=seed, encoder=encoder, on_done=note)
            case LocalGeneratorConfig():
                _generate_here(model, requests, config, seed, encoder, note)
            case _:
                raise TypeError(f"generator.kind={config.kind}: has no generator")
    return {name: [samples[number] for number in sorted(samples)] for name, samples in found.items()}


def _generate_here(
    model: Any,
    requests: Sequence[PrefixRequest],
    config: LocalGeneratorConfig,
    seed: int,
    encoder: PromptEncoder,
    note: OnDone,
) -> None:
    stops = stop_tokens(model, encoder)
    settings = DecodeSettings(Sampling(config.temperature, config.top_p), config.max_new_tokens, seed, stops)

    def finished(branch: Branch, tokens: list[int]) -> None:
        stopped = tokens[-1] in stops
        text = text_after(encoder.tokenizer, branch.prefix_ids, tokens[:-1] if stopped else tokens)
        note(requests[branch.request].id, branch.sample, Continuation(tokens, text, "stop" if stopped else "length"))

    decode(model, branches_of(requests), settings=settings, batch_size=config.batch_size, finished=finished)
