"""Continuations by a model in this process: every prefix is computed once, its samples are decoded together.

Shape letters: L branches, N positions where branches begin, V vocabulary, T own tokens.
"""

import itertools
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor
from transformers import DynamicCache

from alignlab.engine.models import causal_lm, project_only
from alignlab.engine.sampling.draw import NO_TOKEN, RandomStream, Sampling, draw_tokens, no_distribution
from alignlab.engine.sampling.mixture import copies_of
from alignlab.engine.sampling.prefixes import Branch, SharedPrefix, split
from alignlab.engine.sampling.shared import BranchIndex, SharedCache, shared_attention

_PREFILL_TOKENS = 8192
"""Most tokens of one forward over prefixes; a longer single prefix is read at once."""


@dataclass
class Counts:
    """What was computed, padding included."""

    prefill_tokens: int = 0
    decoded_tokens: int = 0


@dataclass(frozen=True)
class DecodeSettings:
    """Everything that a continuation depends on, beside model and prefix."""

    sampling: Sampling
    max_new_tokens: int
    seed: int
    stops: frozenset[int]
    """Tokens that end a turn."""


Finished = Callable[[Branch, list[int]], None]
"""Called with a branch and its tokens, stop token included, as soon as it ends."""


@dataclass
class _Sample:
    """A branch that is being decoded."""

    branch: Branch
    prefix: int
    """Its prefix's row in the cache."""
    stream: RandomStream
    tokens: list[int] = field(default_factory=list)
    ended: bool = False


class Decoder:
    """Decodes up to batch_size branches at once; branches that end are replaced by the next prefixes'.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        settings: how it is sampled.
        batch_size: most branches at once; memory holds the keys and values of their own tokens, and once those of each
            prefix that they continue.
        finished: told of every branch that ends.
    """

    def __init__(self, model: Any, settings: DecodeSettings, *, batch_size: int, finished: Finished) -> None:
        self._model, self._settings, self._batch_size, self._finished = model, settings, batch_size, finished
        self._device, self._copies = next(model.parameters()).device, copies_of(model)
        self._samples: list[_Sample] = []
        """In the order of the cache; ended ones stay until it is rebuilt."""
        self._cache: SharedCache | None = None
        self._numbers_LT = torch.empty(0)
        self._last_L = torch.empty(0)
        self.counts = Counts()

    @torch.no_grad()
    def run(self, prefixes: Sequence[SharedPrefix]) -> None:
        """Decode every branch of the prefixes."""
        pending = deque(prefixes)
        while pending or self._live():
            live = len(self._live())
            if pending and live <= self._batch_size * 3 // 4:
                self._admit(self._next_prefixes(pending, self._batch_size - live))
            elif live <= len(self._samples) // 2:
                self._regrow([], [], [])
            if self._live():
                self._step()

    def _live(self) -> list[_Sample]:
        return [sample for sample in self._samples if not sample.ended]

    def _next_prefixes(self, pending: deque[SharedPrefix], free: int) -> list[SharedPrefix]:
        """Prefixes whose branches fit; one that does not is split if many rows would stay free."""
        taken = []
        while pending and len(pending[0].branches) <= free:
            taken.append(pending.popleft())
            free -= len(taken[-1].branches)
        if pending and free >= max(1, self._batch_size // 4):
            part, rest = split(pending.popleft(), free)
            taken.append(part)
            pending.appendleft(rest)
        return taken

    def _admit(self, prefixes: Sequence[SharedPrefix]) -> None:
        """Prefill the prefixes and draw their branches' first tokens."""
        samples: list[_Sample] = []
        caches, firsts = [], []
        begin = 0
        while begin < len(prefixes):
            chunk = _of_like_length(prefixes[begin:])
            cache, logits_LV = prefill(self._model, chunk)
            self.counts.prefill_tokens += len(chunk) * len(chunk[0].token_ids)
            caches.append(cache)
            new = [self._sample(branch, begin + row) for row, prefix in enumerate(chunk) for branch in prefix.branches]
            firsts.append(self._draw(logits_LV, new, _numbers(new, self._device)[:, 0]))
            samples += new
            begin += len(chunk)
        self._regrow(samples, caches, firsts)

    def _sample(self, branch: Branch, prefix: int) -> _Sample:
        stream = RandomStream(branch.name, seed=self._settings.seed, count=self._settings.max_new_tokens)
        return _Sample(branch, prefix, stream)

    def _regrow(self, new: list[_Sample], caches: list[DynamicCache], firsts: list[Tensor]) -> None:
        """Rebuild the cache: without ended branches, with the prefixes that were just computed."""
        kept_branches = [index for index, sample in enumerate(self._samples) if not sample.ended]
        kept = [self._samples[index] for index in kept_branches]
        kept_prefixes = sorted({sample.prefix for sample in kept})
        row_of = {prefix: row for row, prefix in enumerate(kept_prefixes)}
        for sample in kept:
            sample.prefix = row_of[sample.prefix]
        for sample in new:
            sample.prefix += len(kept_prefixes)
        old, self._samples = self._cache, kept + new
        self._last_L = torch.cat([self._last_L.to(self._device)[kept_branches].long(), *firsts])
        if not self._live():
            self._samples, self._cache = [], None
            return
        self._numbers_LT = _numbers(self._samples, self._device)
        copies = self._copies  # of a mixture: each branch and prefix is so many rows, one beside the other
        steps = [len(sample.tokens) - 1 for sample in self._samples]
        index = BranchIndex(
            prefixes=len(kept_prefixes) * copies + sum(len(cache.layers[0].keys) for cache in caches),
            prefix_L=self._rows(_repeated([sample.prefix for sample in self._samples], copies)),
            depth_L=self._rows([sample.branch.depth for sample in self._samples]).repeat_interleave(copies),
            steps_L=self._rows(steps).repeat_interleave(copies),
            longest=self._settings.max_new_tokens,
        )
        kept_rows, kept_prefix_rows = _repeated(kept_branches, copies), _repeated(kept_prefixes, copies)
        self._cache = SharedCache.regrown(
            old, caches, index=index, kept_branches=kept_rows, kept_prefixes=kept_prefix_rows
        )

    def _rows(self, values: list[int]) -> Tensor:
        return torch.tensor(values, device=self._device)

    def _step(self) -> None:
        """Draw one more token for every branch."""
        assert self._cache is not None
        index = self._cache.index
        with shared_attention(causal_lm(self._model)):
            output = self._model(
                self._last_L[:, None],
                position_ids=(index.depth_L + index.steps_L)[:: self._copies, None],
                past_key_values=self._cache,
                shared_prefixes=self._cache,
                use_cache=True,
                logits_to_keep=1,
            )
        index.advance()
        self.counts.decoded_tokens += len(self._samples)
        u_L = self._numbers_LT.gather(1, index.steps_L[:: self._copies, None])[:, 0]
        self._last_L = self._draw(output.logits[:, -1], self._samples, u_L)

    def _draw(self, logits_LV: Tensor, samples: Sequence[_Sample], u_L: Tensor) -> Tensor:
        """Draw the samples' next tokens, note them, and report the samples that they end."""

        def redraw(rows: list[int], attempt: int) -> Tensor:
            last = self._settings.max_new_tokens - 1  # for what has ended and still runs along
            steps = [min(len(samples[row].tokens), last) for row in rows]
            numbers = [samples[row].stream.attempt(attempt)[step] for row, step in zip(rows, steps, strict=True)]
            return torch.tensor(numbers, dtype=torch.float64, device=logits_LV.device)

        tokens_L = draw_tokens(logits_LV, u_L, redraw, self._settings.sampling)
        for sample, token in zip(samples, tokens_L.tolist(), strict=True):
            if sample.ended:
                continue
            if token == NO_TOKEN:
                raise no_distribution(sample.branch.name)
            sample.tokens.append(token)
            if token in self._settings.stops or len(sample.tokens) == self._settings.max_new_tokens:
                sample.ended = True
                self._finished(sample.branch, sample.tokens)
        return tokens_L.clamp(min=0)  # what has ended runs along, whatever its logits are


def _repeated(indices: Sequence[int], copies: int) -> list[int]:
    """Rows of some branches or prefixes, each of which is so many rows."""
    return [index * copies + copy for index in indices for copy in range(copies)]


def _of_like_length(prefixes: Sequence[SharedPrefix]) -> Sequence[SharedPrefix]:
    """The first prefixes, longest first, that are computed together: at most half of a batch is padding."""
    longest = len(prefixes[0].token_ids)
    most = max(1, _PREFILL_TOKENS // longest)
    return list(itertools.takewhile(lambda prefix: 2 * len(prefix.token_ids) > longest, prefixes[:most]))


def prefill(model: Any, prefixes: Sequence[SharedPrefix]) -> tuple[DynamicCache, Tensor]:
    """Keys and values of the prefixes, and the logits after each branch's own prefix, (L, V)."""
    device = next(model.parameters()).device
    width = max(len(prefix.token_ids) for prefix in prefixes)
    # Padded at the end: no earlier token attends to padding, and no branch is that deep.
    ids = torch.tensor(
        [(*prefix.token_ids, *[0] * (width - len(prefix.token_ids))) for prefix in prefixes], device=device
    )
    ends = {(row, branch.depth): 0 for row, prefix in enumerate(prefixes) for branch in prefix.branches}
    copies = copies_of(model)
    rows_N = _repeated([row for row, _ in ends], copies)
    depths_N = [depth for _, depth in ends for _ in range(copies)]
    flat_N = torch.tensor([row * width + depth - 1 for row, depth in zip(rows_N, depths_N, strict=True)], device=device)
    cache = DynamicCache()
    with project_only(causal_lm(model).base_model, flat_N):
        output = model(ids, past_key_values=cache, use_cache=True)
    index_of = {end: index for index, end in enumerate(ends)}
    rows = [index_of[row, branch.depth] for row, prefix in enumerate(prefixes) for branch in prefix.branches]
    return cache, output.logits[0, torch.tensor(rows, device=device)]


def _numbers(samples: Sequence[_Sample], device: torch.device) -> Tensor:
    """First attempts' uniform numbers, float64, (samples, max_new_tokens)."""
    return torch.from_numpy(np.stack([sample.stream.attempt(0) for sample in samples])).to(device)
