"""Preference pairs as token ids, cut to the length limit before anything is scored."""

from collections.abc import Sequence
from dataclasses import dataclass

from alignlab.data.records import Pair
from alignlab.models.prompts import Encoded, PromptEncoder


@dataclass(frozen=True)
class EncodedPair:
    """A pair's prompt and two responses as tokens."""

    id: str
    group: str
    chosen: Encoded
    rejected: Encoded


@dataclass(frozen=True)
class EncodedPairs:
    """The pairs that fit, and how many did not."""

    pairs: list[EncodedPair]
    too_long: int
    """Pairs whose prompt alone fills the limit: nothing is left to learn from."""
    cut: int
    """Responses that were cut at the limit."""
    merged: int
    """Responses whose beginning shares a token with the prompt's end."""

    def responses(self) -> list[Encoded]:
        """All chosen responses, then all rejected ones: 2n rows for n pairs."""
        return [pair.chosen for pair in self.pairs] + [pair.rejected for pair in self.pairs]


def encode_pairs(pairs: Sequence[Pair], encoder: PromptEncoder, *, max_length: int) -> EncodedPairs:
    """Tokens of every pair, prompt and response together at most max_length tokens.

    Raises:
        ValueError: if no pair fits.
    """
    kept, too_long, cut, merged = [], 0, 0, set()
    texts = [(pair.prompt, text) for pair in pairs for text in (pair.chosen, pair.rejected)]
    rows = encoder.encode_all(texts)
    for pair, chosen, rejected in zip(pairs, rows[::2], rows[1::2], strict=True):
        if max(len(chosen.prompt_ids), len(rejected.prompt_ids)) >= max_length:
            too_long += 1
            continue
        cut += _too_long(chosen, max_length) + _too_long(rejected, max_length)
        merged |= {row.key for row in (chosen, rejected) if row.merged}
        kept.append(EncodedPair(pair.id, pair.group, fit(chosen, max_length), fit(rejected, max_length)))
    if not kept:
        raise ValueError(f"trainer.max_length={max_length}: no prompt of {len(pairs)} pairs is shorter")
    return EncodedPairs(kept, too_long, cut, len(merged))


def _too_long(row: Encoded, limit: int) -> bool:
    return len(row.prompt_ids) + len(row.response_ids) > limit


def fit(row: Encoded, limit: int) -> Encoded:
    """The row cut at the end so that prompt and response take at most `limit` tokens."""
    if not _too_long(row, limit):
        return row
    return Encoded(row.prompt_ids, row.response_ids[: limit - len(row.prompt_ids)], row.prompt)
