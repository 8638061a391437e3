"""Preference pairs as token ids, within the length limit before anything is scored."""

import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from alignlab.data.records import Pair, Prompt
from alignlab.errors import ConfigError
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.models.rendering import TemplateError


@dataclass(frozen=True)
class EncodedPair:
    """A pair's prompt and two responses as tokens."""

    id: str
    group: str
    chosen: Encoded
    rejected: Encoded
    cut: bool = False
    """Whether the limit cut one of the responses."""
    set: str = ""
    """The ranked row that it is from."""
    sft_from: int = 0
    """Index in the chosen response of the first token whose likelihood a loss may count; -1: it counts none."""


@dataclass(frozen=True)
class EncodedPairs:
    """The pairs that fit, and how many did not."""

    pairs: list[EncodedPair]
    too_long: int
    """Pairs that were left out, as they take more tokens than the limit; of those that are cut, the ones whose prompt
    alone fills it."""
    cut: int
    """Responses that were cut at the limit, once in each pair that holds them."""
    merged: int
    """Different responses whose beginning shares a token with the prompt's end."""

    def responses(self) -> list[Encoded]:
        """All chosen responses, then all rejected ones: 2n rows for n pairs."""
        return [pair.chosen for pair in self.pairs] + [pair.rejected for pair in self.pairs]


def encode_pairs(
    pairs: Sequence[Pair],
    encoder: PromptEncoder,
    *,
    max_length: int | None,
    on_long: str = "drop",
    key: str = "trainer.max_length",
) -> EncodedPairs:
    """Tokens of every pair, prompt and response together at most max_length tokens.

    Args:
        pairs: prompts with two responses.
        encoder: tokenizes them.
        max_length: tokens; None sets no limit.
        on_long: dataset.on_long. drop leaves out a pair of which one response takes more, as the paper's scripts do;
            cut trains on it up to there, and then the response has no end.
        key: of the limit, for errors.

    Raises:
        ConfigError: if no pair fits.
    """
    encoded = encode_what_fits(pairs, encoder, max_length=max_length, on_long=on_long)
    if not encoded.pairs:
        fits = (
            "a prompt that is shorter" if on_long == "cut" else "two responses that fit; dataset.on_long=cut cuts them"
        )
        raise ConfigError(f"{key}={max_length}: none of {len(pairs)} pairs has {fits}")
    return encoded


def encode_what_fits(
    pairs: Sequence[Pair], encoder: PromptEncoder, *, max_length: int | None, on_long: str = "drop"
) -> EncodedPairs:
    """The same, possibly none at all.

    Args:
        pairs: of the data.
        encoder: of the model.
        max_length: of prompt and response, tokens.
        on_long: drop or cut.
    """
    limit = sys.maxsize if max_length is None else max_length
    kept, too_long, cut = [], 0, 0
    texts = {(pair.prompt, text): pair.location for pair in pairs for text in (pair.chosen, pair.rejected)}
    encoded = dict(zip(texts, encode_located(encoder, texts), strict=True))  # six ranked responses make fifteen pairs
    for pair in pairs:
        chosen, rejected = one_boundary(encoded[pair.prompt, pair.chosen], encoded[pair.prompt, pair.rejected])
        num_cut = _too_long(chosen, limit) + _too_long(rejected, limit)
        if len(chosen.prompt_ids) >= limit or (num_cut and on_long == "drop"):
            too_long += 1
            continue
        cut += num_cut
        sides = fit(chosen, limit), fit(rejected, limit)
        first = _first_counted(pair, chosen, encoder)
        first = first if first < len(sides[0].response_ids) else -1
        kept.append(EncodedPair(pair.id, pair.group, *sides, cut=num_cut > 0, set=pair.set or pair.id, sft_from=first))
    return EncodedPairs(kept, too_long, cut, sum(row.merged for row in encoded.values()))


def encode_located(encoder: PromptEncoder, texts: Mapping[tuple[Prompt, str], str]) -> list[Encoded]:
    """Tokens of (prompt, response) -> where it is from; a template's refusal names the first such location.

    Raises:
        TemplateError: if the chat template refuses one.
    """
    try:
        return encoder.encode_all(list(texts))
    except TemplateError:
        for text, location in texts.items():
            try:
                encoder.encode_all([text])
            except TemplateError as error:
                raise TemplateError(f"{location}: {error}" if location else str(error)) from None
        raise


def _first_counted(pair: Pair, chosen: Encoded, encoder: PromptEncoder) -> int:
    """Index of the first response token after pair.likelihood_start; a token across it counts. -1 for none."""
    if not pair.likelihood_start:
        return -1 if pair.likelihood_start is None else 0
    before = encoder.encode(pair.prompt, pair.chosen[: pair.likelihood_start].rstrip())
    begun = [*before.prompt_ids, *before.response_ids[:-1]]
    whole = [*chosen.prompt_ids, *chosen.response_ids]
    shared = next((index for index, token in enumerate(begun) if token != whole[index]), len(begun))
    return max(0, shared - len(chosen.prompt_ids))


def one_boundary(left: Encoded, right: Encoded) -> tuple[Encoded, Encoded]:
    """Both rows with the prompt that they share: where one response merges with its end, the other gives it up too.

    Otherwise a token of the prompt would count in one of the two log-probabilities alone.
    """
    start = min(len(left.prompt_ids), len(right.prompt_ids))
    return _start_at(left, start), _start_at(right, start)


def _start_at(row: Encoded, start: int) -> Encoded:
    if start == len(row.prompt_ids):
        return row
    return replace(row, prompt_ids=row.prompt_ids[:start], response_ids=row.prompt_ids[start:] + row.response_ids)


def _too_long(row: Encoded, limit: int) -> bool:
    return len(row.prompt_ids) + len(row.response_ids) > limit


def fit(row: Encoded, limit: int) -> Encoded:
    """The row cut at the end so that prompt and response take at most `limit` tokens.

    The prompt is never cut: nothing is left of the response where it fills the limit by itself.
    """
    if not _too_long(row, limit):
        return row
    return Encoded(row.prompt_ids, row.response_ids[: max(0, limit - len(row.prompt_ids))], row.prompt)
