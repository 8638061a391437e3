"""The data and the model that the training benchmarks share."""

import itertools
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from datasets import Dataset

from alignlab.config.schema import ArchitectureConfig, PeftConfig
from alignlab.data.files import read_rows
from alignlab.models.prompts import Encoded, PromptEncoder
from alignlab.models.scratch import bpe_tokenizer, new_llama

TEMPLATE = "BEGINNING OF CONVERSATION: USER: {raw_prompt} ASSISTANT:"
MAX_LENGTH = 512
REFUSAL = "I am sorry, but I cannot help with this request, because it could hurt someone."
CORRECTION = (
    " Wait, I should stop here. What I have said so far could hurt someone, and I do not want to take part in that. "
    "Let me offer something better instead: if you tell me what you are trying to achieve, I will gladly help you to "
    "find a way that is safe, legal and kind to everybody involved."
)
"""Harmless texts of our own; the responses between them come from the rows that the user names."""
LORA = PeftConfig(r=64, alpha=64.0, dropout=0.0, target_modules=["q_proj", "k_proj", "v_proj", "o_proj"])
PAIRS_A_BATCH = {"pairs": 6, "ranked": 30}


@dataclass(frozen=True)
class Workload:
    """Tokenised pairs in training order, with the tokenizer and a model to train."""

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


def workload(rows: Path, *, shape: str, requests: int, batch_size: int | None) -> Workload:
    """Pairs of the first rows (`pairs`), or all 15 pairs of six ranked responses made of each (`ranked`)."""
    records = [row for _, row in read_rows(rows)]
    texts = [text for row in records for text in (row["prompt"], row["response_0"], row["response_1"])]
    tokenizer = bpe_tokenizer(texts, 8000)
    encoder = PromptEncoder(tokenizer, TEMPLATE)
    make = _ranked_pairs if shape == "ranked" else _pair
    made = [pair for row in itertools.islice(_usable(records, shape), requests) for pair in make(row)]
    flat = encoder.encode_all([(prompt, text) for prompt, *sides in made for text in sides])
    cut = [Encoded(row.prompt_ids, row.response_ids[: MAX_LENGTH - len(row.prompt_ids)]) for row in flat]
    pairs = list(zip(cut[::2], cut[1::2], strict=True))
    return Workload(tokenizer, pairs, batch_size or PAIRS_A_BATCH[shape])


def model_of(tokenizer: Any, *, hidden: int, layers: int) -> Any:
    """A random Llama; 256 by 6 over 8,000 tokens has 8.9M parameters."""
    shape = ArchitectureConfig(
        vocab_size=len(tokenizer),
        hidden_size=hidden,
        intermediate_size=hidden * 8 // 3 // 8 * 8,
        num_hidden_layers=layers,
        num_attention_heads=max(1, hidden // 32),
        max_position_embeddings=1024,
        initializer_range=0.02,
    )
    return new_llama(shape, tokenizer, seed=0).requires_grad_(False)


def _usable(records: Sequence[dict[str, Any]], shape: str) -> Any:
    if shape == "pairs":
        return iter(records)
    return (row for row in records if not (row["is_response_0_safe"] and row["is_response_1_safe"]))


def _pair(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    better = row["better_response_id"]
    return [(row["prompt"], row[f"response_{better}"], row[f"response_{1 - better}"])]


def _ranked_pairs(row: dict[str, Any]) -> list[tuple[str, str, str]]:
    """A refusal, the unsafe response corrected after 1/4 to 4/4 of its words, and the response itself: 15 pairs."""
    unsafe = row["response_1"] if row["is_response_0_safe"] else row["response_0"]
    words = unsafe.split()
    corrected = [" ".join(words[: len(words) * quarter // 4]) + CORRECTION for quarter in (1, 2, 3, 4)]
    ranked = [REFUSAL, *corrected, unsafe]
    return [(row["prompt"], better, worse) for better, worse in itertools.combinations(ranked, 2)]
