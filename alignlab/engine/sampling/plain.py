"""Continuations by a model whose layers cannot share a prefix: each path reads its own, by transformers' generate.

Recurrent state, convolutions and the like end up here. Draws come from the same numbers as everywhere.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, LogitsProcessor, LogitsProcessorList

from alignlab.engine.sampling.draw import Uniforms, draw_tokens
from alignlab.engine.sampling.local import Counts, DecodeSettings, Finished
from alignlab.engine.sampling.trunks import Lane, Trunk


class PlainDecoder:
    """Decodes batches of prefixes of one length, so that nothing is padded; the other decoder's stand-in."""

    def __init__(self, model: Any, settings: DecodeSettings, *, batch_size: int, finished: Finished) -> None:
        self._model, self._settings, self._batch_size, self._finished = model, settings, batch_size, finished
        self._device = next(model.parameters()).device
        self.counts = Counts()

    @torch.no_grad()
    def run(self, trunks: Sequence[Trunk]) -> None:
        """Decodes every lane of the trunks."""
        for lanes in self._batches(trunks):
            ids = torch.tensor([lane.prefix_ids for lane in lanes], device=self._device)
            drawing = _Drawing(lanes, self._settings, width=ids.shape[1])
            output = self._model.generate(
                input_ids=ids,
                attention_mask=torch.ones_like(ids),
                generation_config=self._generation_config(),
                logits_processor=LogitsProcessorList([drawing]),
            )
            self.counts.prefill_tokens += ids.numel()
            for lane, tokens in zip(lanes, output[:, ids.shape[1] :].tolist(), strict=True):
                self._finished(lane, self._until_stop(tokens))

    def _batches(self, trunks: Sequence[Trunk]) -> Iterator[list[Lane]]:
        by_depth: dict[int, list[Lane]] = {}
        for trunk in trunks:
            for lane in trunk.lanes:
                by_depth.setdefault(lane.depth, []).append(lane)
        for _, lanes in sorted(by_depth.items(), reverse=True):
            for start in range(0, len(lanes), self._batch_size):
                yield lanes[start : start + self._batch_size]

    def _generation_config(self) -> GenerationConfig:
        """Nothing but our own draws: a model's defaults, a repetition penalty say, would fill in what is not given."""
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
        ends = [place for place, token in enumerate(tokens) if token in self._settings.stops]
        return tokens[: ends[0] + 1] if ends else tokens


class _Drawing(LogitsProcessor):  # type: ignore[misc]  # transformers is untyped here
    """Leaves each row the one token that its numbers draw; a greedy search then takes it."""

    def __init__(self, lanes: Sequence[Lane], settings: DecodeSettings, *, width: int) -> None:
        count = settings.max_new_tokens
        self._uniforms = [Uniforms(lane.name, seed=settings.seed, count=count) for lane in lanes]
        self._sampling, self._width = settings.sampling, width

    def __call__(self, input_ids: Tensor, scores: Tensor) -> Tensor:
        """Scores (lanes, V) with everything but the drawn token at -inf."""
        step = input_ids.shape[1] - self._width

        def numbers(rows: Sequence[int], attempt: int) -> Tensor:
            values = [self._uniforms[row].attempt(attempt)[step] for row in rows]
            return torch.tensor(values, dtype=torch.float64, device=scores.device)

        tokens = draw_tokens(scores, numbers(range(len(scores)), 0), numbers, self._sampling)
        return torch.full_like(scores, -torch.inf).scatter(1, tokens[:, None], 0.0)
