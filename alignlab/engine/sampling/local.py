"""Continuations by a model in this process: every text is read once, its samples are decoded together.

Shape letters: L lanes, N places where lanes fork, V vocabulary, T own tokens.
"""

import itertools
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from transformers import DynamicCache

from alignlab.engine.sampling.draw import Sampling, Uniforms, draw_tokens
from alignlab.engine.sampling.shared import Fork, SharedCache, shared_attention
from alignlab.engine.sampling.trunks import Lane, Trunk, split

_PREFILL_TOKENS = 8192
"""Most tokens of one forward over prefixes; a longer single prefix is read at once."""


@dataclass
class Counts:
    """What was computed, padding included."""

    prefill_tokens: int = 0
    decoded_tokens: int = 0


@dataclass(frozen=True)
class DecodeSettings:
    """What continuations depend on beside model and prefix."""

    sampling: Sampling
    max_new_tokens: int
    seed: int
    stops: frozenset[int]
    """Tokens that end a turn."""


Finished = Callable[[Lane, list[int]], None]
"""Called with a lane and its tokens, stop token included, as soon as it ends."""


def causal_lm(model: Any) -> Any:
    """The causal language model inside a PEFT wrapper."""
    return model.get_base_model() if hasattr(model, "get_base_model") else model


@dataclass
class _Sample:
    """One lane that decodes."""

    lane: Lane
    trunk: int
    """Its trunk's row in the cache."""
    uniforms: Uniforms
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class Decoder:
    """Decodes up to batch_size lanes at once; lanes that end make room for the next trunks'.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        settings: how it is sampled.
        batch_size: most lanes at once; memory holds the keys and values of their own tokens, and once those of each
            prefix that they continue.
        finished: told of every lane that ends.
    """

    def __init__(self, model: Any, settings: DecodeSettings, *, batch_size: int, finished: Finished) -> None:
        self._model, self._settings, self._batch_size, self._finished = model, settings, batch_size, finished
        self._device = next(model.parameters()).device
        self._samples: list[_Sample] = []
        """Lane by lane of the cache; ended ones stay until it is made anew."""
        self._cache: SharedCache | None = None
        self._numbers_LT = torch.empty(0)
        self._last_L = torch.empty(0)
        self.counts = Counts()

    @torch.no_grad()
    def run(self, trunks: Sequence[Trunk]) -> None:
        """Decodes every lane of the trunks."""
        pending = deque(trunks)
        while pending or self._live():
            live = len(self._live())
            if pending and live <= self._batch_size * 3 // 4:
                self._admit(self._next_trunks(pending, self._batch_size - live))
            elif live <= len(self._samples) // 2:
                self._regrow([], [], [])
            if self._live():
                self._step()

    def _live(self) -> list[_Sample]:
        return [sample for sample in self._samples if not sample.ended]

    def _next_trunks(self, pending: deque[Trunk], room: int) -> list[Trunk]:
        """Trunks that fit into the room; one that does not is split if much room would stay empty."""
        taken = []
        while pending and len(pending[0].lanes) <= room:
            taken.append(pending.popleft())
            room -= len(taken[-1].lanes)
        if pending and room >= max(1, self._batch_size // 4):
            part, rest = split(pending.popleft(), room)
            taken.append(part)
            pending.appendleft(rest)
        return taken

    def _admit(self, trunks: Sequence[Trunk]) -> None:
        """Reads the trunks and draws their lanes' first tokens."""
        samples: list[_Sample] = []
        caches, firsts = [], []
        begin = 0
        while begin < len(trunks):
            chunk = _of_like_length(trunks[begin:])
            cache, logits_LV = read_trunks(self._model, chunk)
            self.counts.prefill_tokens += len(chunk) * len(chunk[0].token_ids)
            caches.append(cache)
            new = [self._sample(lane, begin + row) for row, trunk in enumerate(chunk) for lane in trunk.lanes]
            firsts.append(self._draw(logits_LV, new, _numbers(new, self._device)[:, 0]))
            samples += new
            begin += len(chunk)
        self._regrow(samples, caches, firsts)

    def _sample(self, lane: Lane, trunk: int) -> _Sample:
        uniforms = Uniforms(lane.name, seed=self._settings.seed, count=self._settings.max_new_tokens)
        return _Sample(lane, trunk, uniforms)

    def _regrow(self, new: list[_Sample], caches: list[DynamicCache], firsts: list[Tensor]) -> None:
        """Makes the cache anew: without what has ended, with the trunks that were just read."""
        kept_lanes = [number for number, sample in enumerate(self._samples) if not sample.ended]
        kept = [self._samples[number] for number in kept_lanes]
        kept_trunks = sorted({sample.trunk for sample in kept})
        row_of = {trunk: row for row, trunk in enumerate(kept_trunks)}
        for sample in kept:
            sample.trunk = row_of[sample.trunk]
        for sample in new:
            sample.trunk += len(kept_trunks)
        old, self._samples = self._cache, kept + new
        self._last_L = torch.cat([self._last_L.to(self._device)[kept_lanes].long(), *firsts])
        if not self._live():
            self._samples, self._cache = [], None
            return
        self._numbers_LT = _numbers(self._samples, self._device)
        fork = Fork(
            trunks=len(kept_trunks) + sum(len(cache.layers[0].keys) for cache in caches),
            trunk_L=torch.tensor([sample.trunk for sample in self._samples], device=self._device),
            depth_L=torch.tensor([sample.lane.depth for sample in self._samples], device=self._device),
            steps_L=torch.tensor([len(sample.tokens) - 1 for sample in self._samples], device=self._device),
            longest=self._settings.max_new_tokens,
        )
        self._cache = SharedCache.regrown(old, caches, fork=fork, kept_lanes=kept_lanes, kept_trunks=kept_trunks)

    def _step(self) -> None:
        """One more token for every lane."""
        assert self._cache is not None
        fork = self._cache.fork
        with shared_attention(causal_lm(self._model)):
            output = self._model(
                self._last_L[:, None],
                position_ids=(fork.depth_L + fork.steps_L)[:, None],
                past_key_values=self._cache,
                shared_prefixes=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        fork.advance()
        self.counts.decoded_tokens += len(self._samples)
        numbers_L = self._numbers_LT.gather(1, fork.steps_L[:, None])[:, 0]
        self._last_L = self._draw(output.logits[:, -1], self._samples, numbers_L)

    def _draw(self, logits_LV: Tensor, samples: Sequence[_Sample], numbers_L: Tensor) -> Tensor:
        """Draws the samples' next tokens and notes them; tells of the samples that they end."""

        def again(rows: list[int], attempt: int) -> Tensor:
            last = self._settings.max_new_tokens - 1  # for what has ended and still runs along
            steps = [min(len(samples[row].tokens), last) for row in rows]
            numbers = [samples[row].uniforms.attempt(attempt)[step] for row, step in zip(rows, steps, strict=True)]
            return torch.tensor(numbers, dtype=torch.float64, device=logits_LV.device)

        tokens_L = draw_tokens(logits_LV, numbers_L, again, self._settings.sampling)
        for sample, token in zip(samples, tokens_L.tolist(), strict=True):
            if sample.ended:
                continue
            sample.tokens.append(token)
            if token in self._settings.stops or len(sample.tokens) == self._settings.max_new_tokens:
                sample.ended = True
                self._finished(sample.lane, sample.tokens)
        return tokens_L


def _of_like_length(trunks: Sequence[Trunk]) -> Sequence[Trunk]:
    """The first trunks, longest first, that are read together: half of what is read at most is padding."""
    longest = len(trunks[0].token_ids)
    most = max(1, _PREFILL_TOKENS // longest)
    return list(itertools.takewhile(lambda trunk: 2 * len(trunk.token_ids) > longest, trunks[:most]))


def read_trunks(model: Any, trunks: Sequence[Trunk]) -> tuple[DynamicCache, Tensor]:
    """Keys and values of the trunks' texts, and the logits after each lane's prefix, lane by lane, (lanes, V)."""
    device = next(model.parameters()).device
    width = max(len(trunk.token_ids) for trunk in trunks)
    # Filled up at the end: no earlier token sees what comes after it, and no lane is that deep.
    ids = torch.tensor([(*trunk.token_ids, *[0] * (width - len(trunk.token_ids))) for trunk in trunks], device=device)
    places = {(row, lane.depth): 0 for row, trunk in enumerate(trunks) for lane in trunk.lanes}
    flat_N = torch.tensor([row * width + depth - 1 for row, depth in places], device=device)
    cache = DynamicCache()
    with _only_at(causal_lm(model).base_model, flat_N):
        output = model(ids, past_key_values=cache, use_cache=True)
    number_of = {place: number for number, place in enumerate(places)}
    rows = [number_of[row, lane.depth] for row, trunk in enumerate(trunks) for lane in trunk.lanes]
    return cache, output.logits[0, torch.tensor(rows, device=device)]


@contextmanager
def _only_at(backbone: nn.Module, places_N: Tensor) -> Iterator[None]:
    """Lets the head see the hidden states of these places of the flattened batch alone, as one row of N."""

    def select(module: nn.Module, arguments: Any, output: Any) -> Any:
        hidden = output.last_hidden_state
        output.last_hidden_state = hidden.reshape(-1, hidden.shape[-1])[places_N][None]
        return output

    handle = backbone.register_forward_hook(select)
    try:
        yield
    finally:
        handle.remove()


def _numbers(samples: Sequence[_Sample], device: torch.device) -> Tensor:
    """First attempts' uniform numbers, float64, (samples, max_new_tokens)."""
    return torch.from_numpy(np.stack([sample.uniforms.attempt(0) for sample in samples])).to(device)
