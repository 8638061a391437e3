"""The data and the models that the training benchmarks share."""

import itertools
import random
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignlab.config.schema import ArchitectureConfig, PeftConfig
from alignlab.data.files import read_rows
from alignlab.engine.scoring.layout import padded_batch, prefix_tree_batch
from alignlab.engine.scoring.rows import fit
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.models.scratch import bpe_tokenizer, new_llama, word_tokenizer

SHAPES = ("pairs", "ranked")
TEMPLATE = "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT:"
REFUSAL = "I am sorry, but I cannot help with this request, because it could hurt someone."
CORRECTION = (
    " Wait, I should stop here. What I have said so far could hurt someone, and I do not want to take part in that. "
    "Let me offer something better instead: if you tell me what you are trying to achieve, I will gladly help you to "
    "find a way that is safe, legal and kind to everybody involved."
)
"""Harmless texts of our own; the responses between them come from the rows that the user names."""
COLUMNS = ("prompt", "response_0", "response_1", "better_response_id", "is_response_0_safe", "is_response_1_safe")
PAIRS_A_BATCH = {"pairs": 6, "ranked": 30}
FEWEST_WORDS = 4
"""Of a response that is cut into quarters."""


@dataclass(frozen=True)
class Workload:
    """Tokenised pairs in training order, with their tokenizer."""

    tokenizer: Any
    pairs: list[tuple[Encoded, Encoded]]
    batch_size: int

    def table(self) -> Dataset:
        """The pairs in TRL's columns."""
        return Dataset.from_dict(
            {
                "prompt_ids": [chosen.prompt_ids for chosen, _ in self.pairs],
                "chosen_ids": [chosen.response_ids for chosen, _ in self.pairs],
                "rejected_ids": [rejected.response_ids for _, rejected in self.pairs],
            }
        )

    def responses(self) -> list[Encoded]:
        """Chosen rows, then rejected ones."""
        return [chosen for chosen, _ in self.pairs] + [rejected for _, rejected in self.pairs]

    def batches(self) -> list[list[Encoded]]:
        """The rows of every step."""
        starts = range(0, len(self.pairs), self.batch_size)
        parts = [self.pairs[start : start + self.batch_size] for start in starts]
        return [[left for left, _ in part] + [right for _, right in part] for part in parts]

    def tokens(self) -> dict[str, int]:
        """Tokens of one epoch: padded, real, distinct ones of a batch, and the positions that alignlab computes."""
        counts = dict.fromkeys(("padded", "real", "distinct", "computed"), 0)
        for rows in self.batches():
            laid_out, shared = prefix_tree_batch(rows), prefix_tree_batch(rows, mask_cost=0)
            counts["padded"] += padded_batch(rows).num_positions
            counts["real"] += shared.num_tokens
            counts["distinct"] += shared.num_distinct
            counts["computed"] += laid_out.num_positions
        return counts


def workload(
    rows: Path,
    *,
    shape: str,
    requests: int,
    batch_size: int | None = None,
    vocabulary: int = 8000,
    max_length: int = 512,
) -> Workload:
    """Pairs of the first rows (`pairs`), or all 15 pairs of six ranked responses made of each (`ranked`).

    Args:
        rows: a file in PKU-SafeRLHF's columns.
        shape: one of SHAPES.
        requests: rows of the file that are used; what has no room for a response within max_length is passed over.
        batch_size: pairs of a step; six, or two requests' thirty, unless given.
        vocabulary: tokens of the BPE that is trained on the rows.
        max_length: prompt and response are cut to so many tokens.

    Raises:
        SystemExit: if the file has too few rows, or lacks a column.
    """
    records = records_of(rows)
    texts = [text for row in records for text in (row["prompt"], row["response_0"], row["response_1"])]
    tokenizer = bpe_tokenizer(texts, vocabulary)
    encoder = PromptEncoder(tokenizer, TEMPLATE)
    fitting = (
        row for row in usable(records, shape) if len(encoder.prompt_ids(row["prompt"])) < max_length
    )  # a token of the response must fit
    chosen = list(itertools.islice(fitting, requests))
    if len(chosen) < requests:
        raise SystemExit(f"--requests={requests}: {rows} has {len(chosen)} rows for --shape={shape}")
    make = ranked_pairs if shape == "ranked" else pair_of
    made = [pair for row in chosen for pair in make(row)]
    flat = encoder.encode_all([(prompt, text) for prompt, *sides in made for text in sides])
    cut = [fit(row, max_length) for row in flat]
    pairs = list(zip(cut[::2], cut[1::2], strict=True))
    return Workload(tokenizer, pairs, batch_size or PAIRS_A_BATCH[shape])


def synthetic_workload(
    *, shape: str, requests: int, batch_size: int | None = None, vocabulary: int = 8000, max_length: int = 512
) -> Workload:
    """The same shapes in random tokens, so that no file is needed; lengths are about those of PKU-SafeRLHF's rows.

    Of 512 tokens a prompt takes 30 to 70 and a response 20 to 250; a ranked set is a short refusal, a response cut at
    its quarters and followed by a correction of 60, and the response. Another max_length scales them.
    """
    rng = random.Random(0)
    tokenizer = word_tokenizer([f"w{number}" for number in range(vocabulary - 4)])

    def some(low: int, high: int) -> list[int]:
        return [rng.randrange(4, vocabulary) for _ in range(max(1, rng.randint(low, high) * max_length // 512))]

    refusal, correction = [*some(18, 18), 2], [*some(60, 60), 2]
    pairs = []
    for _ in range(requests):
        prompt, left, right = [1, *some(30, 70)], [*some(20, 250), 2], [*some(20, 250), 2]
        if shape == "pairs":
            pairs.append((Encoded(prompt, left), Encoded(prompt, right)))
            continue
        cut = [left[: len(left) * quarter // 4] + correction for quarter in (1, 2, 3, 4)]
        ranked = [Encoded(prompt, response) for response in (refusal, *cut, left)]
        pairs += itertools.combinations(ranked, 2)
    return Workload(tokenizer, pairs, batch_size or PAIRS_A_BATCH[shape])


def model_of(
    tokenizer: Any, *, hidden: int, layers: int, heads: int | None = None, intermediate: int | None = None
) -> Any:
    """A random Llama; 256 by 6 over 8,000 tokens has 8.9M parameters."""
    shape = ArchitectureConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=intermediate or hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=heads or max(1, hidden // 32),
        max_position_embeddings=1024,
        initializer_range=0.02,
    )
    return new_llama(shape, tokenizer, seed=0).requires_grad_(False)


def lora(rank: int = 64) -> PeftConfig:
    """LoRA on q, k, v and o."""
    return PeftConfig(r=rank, alpha=float(rank), dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])


def records_of(rows: Path) -> list[dict[str, Any]]:
    """The rows of a file in PKU-SafeRLHF's columns.

    Raises:
        SystemExit: if the file has no rows, or a row lacks a column; names it.
    """
    records = []
    for location, row in read_rows(rows):
        missing = [name for name in COLUMNS if name not in row]
        if missing:
            raise SystemExit(f"--rows: {location} lacks {', '.join(missing)}")
        records.append(row)
    if not records:
        raise SystemExit(f"--rows: {rows} holds no rows")
    return records


def usable(records: list[dict[str, Any]], shape: str) -> Iterator[dict[str, Any]]:
    """The rows of which the shape can be made: ranked sets need an unsafe response that can be cut into quarters."""
    if shape == "pairs":
        return iter(records)
    return (row for row in records if len(_unsafe(row).split()) >= FEWEST_WORDS)


def pair_of(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """(prompt, chosen, rejected) by which response is better."""
    better = row["better_response_id"]
    return [(row["prompt"], row[f"response_{better}"], row[f"response_{1 - better}"])]


def ranked_responses(row: dict[str, Any]) -> list[str]:
    """Best first: a refusal, the unsafe response corrected after 1/4 to 4/4 of its words, and the response itself."""
    unsafe = _unsafe(row)
    words = unsafe.split()
    corrected = [" ".join(words[: len(words) * quarter // 4]) + CORRECTION for quarter in (1, 2, 3, 4)]
    return [REFUSAL, *corrected, unsafe]


def pair_row(row: dict[str, Any]) -> dict[str, Any]:
    """The columns that both objectives of a pair need."""
    return {name: row[name] for name in (*COLUMNS, "safer_response_id")}


def ranked_row(row: dict[str, Any]) -> dict[str, Any]:
    """Six responses with a score for each of two objectives that contradict each other."""
    responses = ranked_responses(row)
    order = list(range(len(responses)))
    return {"prompt": row["prompt"], "responses": responses, "scores": {"helpful": order, "safe": order[::-1]}}


def ranked_pairs(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """All 15 pairs of the ranked responses."""
    return [(row["prompt"], better, worse) for better, worse in itertools.combinations(ranked_responses(row), 2)]


def _unsafe(row: dict[str, Any]) -> str:
    """The first response that is not safe; the empty text where both are."""
    unsafe = [row[f"response_{side}"] for side in (0, 1) if not row[f"is_response_{side}_safe"]]
    return str(unsafe[0]) if unsafe else ""
