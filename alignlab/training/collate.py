"""A process's share of an optimizer step as forwards: which pairs are computed together, and how they lie."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch
from trl.trainer.dpo_trainer import DataCollatorForPreference

from alignlab.engine.scoring.forward import Packing, lay_out
from alignlab.engine.scoring.layout import Layout
from alignlab.models.prompts import Encoded

Row = dict[str, Any]
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
"""Kept in float64: near -1000 nats float32 is 6e-5 wide, and beta / w multiplies that."""


@dataclass
class StepCollator(DataCollatorForPreference):  # type: ignore[misc]
    """TRL's collator, forward by forward: `forwards`, each TRL's batch with its `layout` and its `share` of the pairs.

    Pairs of a ranked set come one after another and stay in one forward where the limits allow it: the set's responses
    are then computed once each, however many pairs they are in.
    """

    packing: Packing = Packing.TREES
    pairs_per_forward: int | None = None
    """Pairs of one forward at most."""
    tokens_per_forward: int | None = None
    """Slots of one forward at most, in place of the number of pairs; a pair that takes more has one to itself."""
    in_step: bool = False
    """As many forwards for any pairs of that number: processes that share weights out take them together."""

    def torch_call(self, examples: list[Row]) -> dict[str, Any]:
        """The forwards of one batch."""
        return {"forwards": [self._forward(part, layout, len(examples)) for part, layout in self._parts(examples)]}

    def _forward(self, part: list[Row], layout: Layout, num_pairs: int) -> dict[str, Any]:
        given = [name for name in REFERENCES if name in part[0]]
        references = {name: torch.tensor([row[name] for row in part], dtype=torch.float64) for name in given}
        return {**super().torch_call(part), **references, "layout": layout, "share": len(part) / num_pairs}

    def _parts(self, examples: list[Row]) -> list[tuple[list[Row], Layout]]:
        """The examples in parts that keep the limits, with their layouts."""
        if self.tokens_per_forward is None:
            split = _cut if self.in_step else _split
            return [(part, self._layout(part)) for part in split(examples, self.pairs_per_forward or len(examples))]
        layout = self._layout(examples)
        if layout.num_slots <= self.tokens_per_forward or len(examples) == 1:
            return [(examples, layout)]
        num_parts = min(-(-layout.num_slots // self.tokens_per_forward), len(examples))
        parts = _split(examples, -(-len(examples) // num_parts))
        return [found for part in parts for found in self._parts(part)]

    def _layout(self, examples: list[Row]) -> Layout:
        """Chosen rows first, then rejected ones, as TRL stacks them."""
        sides = ("chosen_ids", "rejected_ids")
        rows = [Encoded(example["prompt_ids"], example[side]) for side in sides for example in examples]
        return lay_out(rows, self.packing)


def _split(examples: Sequence[Row], limit: int) -> list[list[Row]]:
    """Parts of at most `limit` pairs; a set is cut only where it is larger."""
    parts: list[list[Row]] = []
    for _, numbered in groupby(enumerate(examples), key=lambda place: place[1].get("set", place[0])):
        pairs = [row for _, row in numbered]
        if parts and len(parts[-1]) + len(pairs) <= limit:
            parts[-1] += pairs
        else:
            parts += _cut(pairs, limit)
    return parts


def _cut(examples: Sequence[Row], limit: int) -> list[list[Row]]:
    """Parts of exactly `limit` pairs, but for the last."""
    return [list(examples[start : start + limit]) for start in range(0, len(examples), limit)]
