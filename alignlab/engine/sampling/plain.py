"""Continuations by a model whose layers cannot share a prefix, each by transformers' generate.

Recurrent state, convolutions and the like end up here. Draws come from the same numbers as everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignlab.engine.sampling.draw import NO_TOKEN, RandomStream, draw_tokens, no_distribution
from alignlab.engine.sampling.local import Counts, DecodeSettings, Finished
from alignlab.engine.sampling.prefixes import Branch, SharedPrefix


class PlainDecoder:
    """Decodes batches of prefixes of one length, so that nothing is padded.

    Args:
        model: a causal language model in evaluation mode, with or without an adapter.
        settings: how it is sampled.
        batch_size: most branches at once.
        finished: told of every branch that ends.
    """

    def __init__(self, model: Any, settings: DecodeSettings, *, batch_size: int, finished: Finished) -> None:
        self._model, self._settings, self._batch_size, self._finished = model, settings, batch_size, finished
        self._device = next(model.parameters()).device
        self.counts = Counts()

    @torch.no_grad()
    def run(self, prefixes: Sequence[SharedPrefix]) -> None:
        """Decode every branch of the prefixes."""
        for branches in self._batches(prefixes):
            ids = torch.tensor([branch.prefix_ids for branch in branches], device=self._device)
            drawing = _Drawing(branches, self._settings, width=ids.shape[1])
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self._generation_config(),
                logits_processor=LogitsProcessorList([drawing]),
            )
            self.counts.prefill_tokens += ids.numel()
            for branch, tokens in zip(branches, output[:, ids.shape[1] :].tolist(), strict=True):
                self._finished(branch, self._until_stop(tokens))

    def _batches(self, prefixes: Sequence[SharedPrefix]) -> Iterator[list[Branch]]:
        by_depth: dict[int, list[Branch]] = {}
        for prefix in prefixes:
            for branch in prefix.branches:
                by_depth.setdefault(branch.depth, []).append(branch)
        for _, branches in sorted(by_depth.items(), reverse=True):
            for start in range(0, len(branches), self._batch_size):
                yield branches[start : start + self._batch_size]

    def _generation_config(self) -> GenerationConfig:
        """Our own draws alone: a model's defaults, such as a repetition penalty, would fill in what is not given."""
        stops = sorted(self._settings.stops)
        return GenerationConfig(
            max_new_tokens=self._settings.max_new_tokens,
            do_sample=False,
            num_beams=1,
            repetition_penalty=1.0,
            no_repeat_ngram_size=0,
            eos_token_id=stops,
            pad_token_id=stops[0],
        )

    def _until_stop(self, tokens: list[int]) -> list[int]:
        ends = [index for index, token in enumerate(tokens) if token in self._settings.stops]
        return tokens[: ends[0] + 1] if ends else tokens


class _Drawing(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Mask every token but the one that is drawn; greedy search then takes it."""

    def __init__(self, branches: Sequence[Branch], settings: DecodeSettings, *, width: int) -> None:
        count = settings.max_new_tokens
        self._streams = [RandomStream(branch.name, seed=settings.seed, count=count) for branch in branches]
        self._sampling, self._width = settings.sampling, width
        self._names = [branch.name for branch in branches]

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (branches, V) with everything but the drawn token at -inf."""
        step = input_ids.shape[1] - self._width

        def numbers(rows: Sequence[int], attempt: int) -> Tensor:
            values = [self._streams[row].attempt(attempt)[step] for row in rows]
            return torch.tensor(values, dtype=torch.float64, device=scores.device)

        tokens = draw_tokens(scores, numbers(range(len(scores)), 0), numbers, self._sampling)
        broken = (tokens == NO_TOKEN).nonzero()[:, 0].tolist()
        if broken:
            raise no_distribution(self._names[broken[0]])
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)
