"""The one way in: prefixes and settings in, continuations out, each as soon as it is known."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from alignlab.config.schema import LocalGeneratorConfig
from alignlab.generation.base import Continuation, OnDone, PrefixRequest
from alignlab.generation.draw import Sampling
from alignlab.generation.local import Decoder, DecodeSettings, Finished, causal_lm
from alignlab.generation.plain import PlainDecoder
from alignlab.generation.probe import shares_prefixes
from alignlab.generation.trunks import Lane, trunks_of
from alignlab.runs.progress import progress, say


def stop_tokens(model: Any, tokenizer: Any) -> frozenset[int]:
    """What ends a turn: the tokenizer's EOS and the model's own list, e.g. Llama-3's <|eot_id|>."""
    own = getattr(causal_lm(model), "generation_config", None)
    listed = getattr(own, "eos_token_id", None)
    more = listed if isinstance(listed, list) else [] if listed is None else [listed]
    return frozenset({int(tokenizer.eos_token_id), *map(int, more)})


def decode_lanes(
    model: Any,
    requests: Sequence[PrefixRequest],
    *,
    settings: DecodeSettings,
    batch_size: int,
    finished: Finished,
) -> None:
    """Decodes every missing sample; where memory runs out, the rest goes on with half as many at once.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        requests: what to continue.
        settings: how; equal settings and ids draw equal tokens, but where two tokens are as good as equally probable
            the batch's composition can tip the scale by its rounding.
        batch_size: most samples at once.
        finished: told of every sample as it ends.

    Raises:
        torch.OutOfMemoryError: if a single sample does not fit.
    """
    kind = Decoder if shares_prefixes(model) else PlainDecoder
    known: dict[str, set[int]] = {request.id: set(request.known) for request in requests}

    def note(lane: Lane, tokens: list[int]) -> None:
        known[lane.request.id].add(lane.sample)
        finished(lane, tokens)

    while True:
        rest = [replace(request, known=frozenset(known[request.id])) for request in requests]
        try:
            return kind(model, settings, batch_size=batch_size, finished=note).run(trunks_of(rest))
        except torch.OutOfMemoryError:
            if batch_size == 1:
                raise
            batch_size //= 2
            torch.cuda.empty_cache()
            say(f"out of memory: goes on with generator.batch_size={batch_size}")


def generate(
    model: Any,
    requests: Sequence[PrefixRequest],
    *,
    config: LocalGeneratorConfig,
    seed: int,
    tokenizer: Any,
    on_done: OnDone | None = None,
    label: str = "generating",
) -> dict[str, list[Continuation]]:
    """Continuations of every request, by id, in the order of their numbers; known samples are left out.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        requests: what to continue, and how often.
        config: sampling settings, length, batch size. The request says how many samples, not the config.
        seed: with a sample's id it makes its randomness.
        tokenizer: turns tokens into text.
        on_done: told of every continuation as soon as it is known.
        label: what the progress bar says.

    Raises:
        ValueError: if two requests have one id, or a prefix is empty.
    """
    settings = DecodeSettings(
        Sampling(config.temperature, config.top_p), config.max_new_tokens, seed, stop_tokens(model, tokenizer)
    )
    found: dict[str, dict[int, Continuation]] = {request.id: {} for request in requests}
    with progress(label, sum(len(list(request.missing())) for request in requests)) as bar:

        def finished(lane: Lane, tokens: list[int]) -> None:
            stopped = tokens[-1] in settings.stops
            text = text_after(tokenizer, lane.request.prefix_ids, tokens[:-1] if stopped else tokens)
            continuation = Continuation(tokens, text, "stop" if stopped else "length")
            found[lane.request.id][lane.sample] = continuation
            if on_done is not None:
                on_done(lane.request.id, lane.sample, continuation)
            bar.advance()

        decode_lanes(model, requests, settings=settings, batch_size=config.batch_size, finished=finished)
    return {name: [samples[number] for number in sorted(samples)] for name, samples in found.items()}


_CONTEXT = 8
"""Tokens of the prefix that are decoded along: a tokenizer drops a text's first space, and characters span tokens."""


def text_after(tokenizer: Any, prefix_ids: Sequence[int], token_ids: Sequence[int]) -> str:
    """Text of tokens as they follow a prefix, without special tokens."""
    options = {"skip_special_tokens": True, "clean_up_tokenization_spaces": False}
    before = list(prefix_ids[-_CONTEXT:])
    prefix = str(tokenizer.decode(before, **options))
    whole = str(tokenizer.decode([*before, *token_ids], **options))
    alone = str(tokenizer.decode(list(token_ids), **options))
    return whole[len(prefix) :] if whole.startswith(prefix) and prefix else alone
