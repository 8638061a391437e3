"""Model FLOPs of a LoRA training step on a Llama, counted from its rows, and the peak rates they are held against.

Counted, per token that must be computed: each frozen weight matrix once forward and once backward for the activations'
gradient (2 + 2 FLOPs a weight; a frozen weight has no gradient of its own), attention over exactly the tokens that it
may see (4 forward, 8 backward, times hidden size, a layer and seen token), LoRA's matrices 6 FLOPs a weight, and the
output head 2 + 2 FLOPs a weight for the tokens that are scored. Not counted: padding, recomputation under gradient
checkpointing, tokens that a forest shares, norms, softmax, optimiser. So MFU is the same question for both sides, what
share of the peak went into arithmetic that the loss needs, and sharing prefixes does not inflate it.
"""

from collections.abc import Sequence
from typing import Any

from alignlab.models.prompts import Encoded

PEAK_BF16 = {
    "A100": 312e12,
    "H100 PCIe": 756e12,
    "H100 NVL": 835e12,
    "H100": 989e12,
    "H200": 989e12,
    "L40S": 362e12,
    "B200": 2250e12,
}
"""Dense bf16 FLOP/s of the data sheets, by what the device's name holds; the first match counts."""


def peak_of(device_name: str | None) -> float | None:
    """The peak rate of a GPU, None where it is not known."""
    return next((peak for name, peak in PEAK_BF16.items() if device_name and name in device_name), None)


def training_flops(rows: Sequence[Encoded], config: Any, *, lora_rank: int, shared: bool) -> float:
    """FLOPs of forward and backward over one batch.

    Args:
        rows: the batch's prompts and responses.
        config: a LlamaConfig.
        lora_rank: rank of the adapters on q, k, v and o.
        shared: count a beginning that rows share once.
    """
    hidden, layers = config.hidden_size, config.num_hidden_layers
    key_value = hidden * config.num_key_value_heads // config.num_attention_heads
    weights = layers * (2 * hidden * hidden + 2 * hidden * key_value + 3 * hidden * config.intermediate_size)
    adapters = layers * lora_rank * (4 * hidden + 2 * hidden + 2 * key_value)
    tokens, seen, scored = _counts(rows, shared=shared)
    head = 4 * hidden * config.vocab_size * scored
    return float((4 * weights + 6 * adapters) * tokens + 12 * hidden * layers * seen + head)


def _counts(rows: Sequence[Encoded], *, shared: bool) -> tuple[int, int, int]:
    """(tokens, tokens that these may attend to, scored tokens), of all rows or of their prefix tree."""
    texts = sorted((row.prompt_ids + row.response_ids, len(row.prompt_ids)) for row in rows)
    tokens = seen = scored = 0
    previous: list[int] = []
    for text, prompt in texts:
        start = _common_prefix(previous, text) if shared else 0
        tokens += len(text) - start
        seen += (len(text) * (len(text) + 1) - start * (start + 1)) // 2
        scored += len(text) - max(prompt, start)
        previous = text
    return tokens, seen, scored


def _common_prefix(left: list[int], right: list[int]) -> int:
    limit = min(len(left), len(right))
    return next((index for index in range(limit) if left[index] != right[index]), limit)
