"""A process's part of an optimizer step as forwards: which pairs are computed together, and how they lie in memory.

Shape letters: P pairs of a forward; T positions of a row of log-probabilities, see TokenBatch.scored_idx_BT.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import torch

from alignlab.engine.scoring.forward import BatchLayout, make_batch
from alignlab.engine.scoring.layout import TokenBatch
from alignlab.models.prompts import Encoded

Row = dict[str, Any]
REFERENCES = ("ref_chosen_logps", "ref_rejected_logps")
TILTS = ("chosen_tilt", "rejected_tilt")
"""What is added to the references, nats: other objectives' rewards, or SafeDPO's offsets. Missing where nothing is."""
CONDITIONED = ("chosen_rewards", "rejected_rewards", "labels")
"""Every objective's reward and label of a pair, M numbers each: see `ConditionedTrainer`."""
PAIR_WEIGHT = "pair_weight"
"""Factor of a pair's loss; without the column it is 1."""
NO_TOKENS = -1
"""sft_from of a pair whose chosen response has no SFT loss."""


@dataclass
class StepCollator:
    """Rows -> `{"forwards": [...]}`, each a dict of tensors that `PreferenceTrainer.compute_loss` takes.

    Pairs of a ranked set come one after another and stay in one forward where the limits allow it: the set's responses
    are then computed once each, however many pairs they are in.
    """

    batch_layout: BatchLayout = BatchLayout.PREFIX_TREE
    pairs_per_forward: int | None = None
    """Pairs of one forward at most."""
    tokens_per_forward: int | None = None
    """Positions of one forward at most, in place of the number of pairs; a pair that takes more is computed alone."""
    memory_tokens: int | None = None
    """Positions that fit into memory, beside a number of pairs; None for no limit, or where processes share weights."""
    min_forwards: int = 1
    """Of a batch at least, where it has as many ranked sets."""
    in_step: bool = False
    """Cut by the number of pairs alone, whatever their sets: processes that shard weights must take equally many
    forwards."""

    def __call__(self, rows: list[Row]) -> dict[str, list[dict[str, Any]]]:
        """The forwards of one batch."""
        return {"forwards": [_forward(part, layout, len(rows)) for part, layout in self._parts(rows)]}

    def _parts(self, rows: list[Row]) -> list[tuple[list[Row], TokenBatch]]:
        """The rows in parts that keep the limits, with their layouts."""
        by_tokens = self.tokens_per_forward is not None
        most_pairs = len(rows) if by_tokens else self.pairs_per_forward or len(rows)
        if self.min_forwards > 1:
            part = -(-len(rows) // self.min_forwards)
            most_pairs = min(most_pairs, part if self.in_step else max(part, _largest_set(rows)))
        split = _cut if self.in_step else _split
        most_positions = self.tokens_per_forward if by_tokens else self.memory_tokens
        return [found for part in split(rows, most_pairs) for found in self._within(part, most_positions)]

    def _within(self, rows: list[Row], most: int | None) -> list[tuple[list[Row], TokenBatch]]:
        """The rows in parts of at most so many positions; None for no limit."""
        layout = self._layout(rows)
        if most is None or layout.num_positions <= most or len(rows) == 1:
            return [(rows, layout)]
        num_parts = min(-(-layout.num_positions // most), len(rows))
        parts = _split(rows, -(-len(rows) // num_parts))
        return [found for part in parts for found in self._within(part, most)]

    def _layout(self, rows: list[Row]) -> TokenBatch:
        """All chosen responses, then all rejected ones."""
        sides = ("chosen_ids", "rejected_ids")
        return make_batch([Encoded(row["prompt_ids"], row[side]) for side in sides for row in rows], self.batch_layout)


def _forward(rows: list[Row], layout: TokenBatch, num_pairs: int) -> dict[str, Any]:
    """One forward.

    References and tilts enter as float64: near -1000 nats float32 is 6e-5 wide, and beta / w multiplies that.
    `weight` is the forward's fraction of the batch's pairs; `sft_starts` and `sft_counts` are `chosen_nll`'s, (P,).
    """
    columns = [name for name in (*REFERENCES, *TILTS, *CONDITIONED, PAIR_WEIGHT) if name in rows[0]]
    starts, counts = zip(*(_sft_tokens(row) for row in rows), strict=True)
    return {
        **{name: torch.tensor([row[name] for row in rows], dtype=torch.float64) for name in columns},
        "layout": layout,
        "chosen_lengths": torch.tensor([len(row["chosen_ids"]) for row in rows]),
        "rejected_lengths": torch.tensor([len(row["rejected_ids"]) for row in rows]),
        "sft_starts": torch.tensor(starts),
        "sft_counts": torch.tensor(counts),
        "weight": len(rows) / num_pairs,
        "num_tokens": layout.num_tokens,
        "ids": [row["id"] for row in rows],
    }


def _sft_tokens(row: Row) -> tuple[int, int]:
    """(First position, number) of the chosen response's tokens that carry the SFT loss.

    The optional column `sft_from` is the index of the first one in the response; -1 for none. Without it all do.
    """
    first = row.get("sft_from", 0)
    if first == NO_TOKENS:
        return 0, 0
    return len(row["prompt_ids"]) - 1 + first, max(0, len(row["chosen_ids"]) - first)


def _largest_set(rows: Sequence[Row]) -> int:
    """Pairs of the largest ranked set."""
    return max(Counter(row.get("set", number) for number, row in enumerate(rows)).values())


def _split(rows: Sequence[Row], limit: int) -> list[list[Row]]:
    """Parts of at most `limit` pairs; a set is cut only where it is larger."""
    parts: list[list[Row]] = []
    for _, numbered in groupby(enumerate(rows), key=lambda item: item[1].get("set", item[0])):
        pairs = [row for _, row in numbered]
        if parts and len(parts[-1]) + len(pairs) <= limit:
            parts[-1] += pairs
        else:
            parts += _cut(pairs, limit)
    return parts


def _cut(rows: Sequence[Row], limit: int) -> list[list[Row]]:
    """Parts of exactly `limit` pairs, but for the last."""
    return [list(rows[start : start + limit]) for start in range(0, len(rows), limit)]
