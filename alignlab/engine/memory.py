"""Batch sizes from the memory at hand, and halving where that was too much.

Budgets are powers of two, and on a CPU capped, so that batches, and with them the last bits of a score, are the same on
machines that have enough memory.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, TypeVar

import torch

from alignlab.engine.models import causal_lm, device_of
from alignlab.runs.progress import say

CPU_BYTES = 1 << 30
"""Most working memory of one forward on a CPU; larger batches are no faster there."""
MAX_TOKENS = 1 << 16
"""Most tokens of one forward; a GPU is full long before."""
CPU_OPERATIONS = 1 << 40
"""Most operations of one forward on a CPU, some ten seconds on two cores: progress shows, and a kill loses little."""
FRACTION = 0.25
"""Fraction of free memory to plan with: estimates are rough, and other processes allocate too."""

Result = TypeVar("Result")


def free_bytes(device: torch.device) -> int:
    """Memory that is free now: of the GPU with torch's own reserve, or of the machine within its cgroup's limit."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return min(_machine_bytes(), _cgroup_bytes())


def token_budget(model: Any, *, backward: bool = False, logits_copies: int = 0, limit_operations: bool = True) -> int:
    """Tokens of one forward, padding included, that fit into a part of the free memory; a power of two, at least 1.

    Args:
        model: a causal language model, wrapped or not, on the device that computes.
        backward: keep every layer's activations for a backward pass.
        logits_copies: float32 tensors of shape (tokens, vocabulary) held at once; 0 where a fused head projects in
            chunks.
        limit_operations: on a CPU, take no more than some ten seconds' work; else memory alone counts.
    """
    inner = causal_lm(model)
    config, width = inner.config.get_text_config(), _element_bytes(inner)
    if getattr(config, "hidden_size", None) is None:  # a model of one's own whose config names no shape
        return MAX_TOKENS
    hidden = config.hidden_size
    inside = getattr(config, "intermediate_size", None) or 4 * hidden
    layer = (10 * hidden + 4 * inside) * width
    per_token = layer * config.num_hidden_layers if backward else 2 * layer
    per_token += 4 * logits_copies * config.vocab_size
    limit = _planned_bytes(device_of(inner)) // per_token
    if limit_operations and device_of(inner).type == "cpu":
        limit = min(limit, CPU_OPERATIONS // (2 * sum(weights.numel() for weights in inner.parameters())))
    return min(MAX_TOKENS, _power_of_two(limit))


def sequence_budget(model: Any, *, tokens: int) -> int:
    """Sequences that decode together within a part of the free memory; a power of two, at least 1.

    Counts each sequence's keys and values twice (a cache is rebuilt beside the old one) and six float32 rows of the
    vocabulary for drawing a token.

    Args:
        model: a causal language model, wrapped or not, on the device that computes.
        tokens: keys and values that one sequence has of its own, at most.
    """
    inner = causal_lm(model)
    config = inner.config.get_text_config()
    if getattr(config, "hidden_size", None) is None:
        return MAX_TOKENS
    heads = getattr(config, "num_attention_heads", None) or 1
    head_dim = getattr(config, "head_dim", None) or config.hidden_size // heads
    key_value_heads = getattr(config, "num_key_value_heads", None) or heads
    cache = 4 * config.num_hidden_layers * key_value_heads * head_dim * tokens * _element_bytes(inner)
    return _power_of_two(_planned_bytes(device_of(inner)) // (cache + 24 * config.vocab_size))


def batches_within(
    sizes: Sequence[int],
    *,
    max_tokens: int,
    max_rows: int | None = None,
    padded: bool = False,
    first_sizes: Sequence[int] | None = None,
) -> list[list[int]]:
    """Consecutive indices in batches of limited size; a row larger than the limit has a batch to itself.

    Args:
        sizes: tokens that each row adds to its batch, in batch order.
        max_tokens: most tokens of a batch.
        max_rows: most rows of a batch; None for no limit.
        padded: rows are padded to the longest of their batch.
        first_sizes: tokens that each row adds where it is the first of its batch; None for the same as `sizes`.
    """
    batches: list[list[int]] = []
    total = longest = 0
    for index, size in enumerate(sizes):
        longest = max(longest, size)
        if batches:
            total = (len(batches[-1]) + 1) * longest if padded else total + size
        if batches and total <= max_tokens and (max_rows is None or len(batches[-1]) < max_rows):
            batches[-1].append(index)
        else:
            batches.append([index])
            total = longest = size if first_sizes is None else first_sizes[index]
    return batches


def halving_on_oom(
    batches: Iterable[Sequence[Any]], compute: Callable[[list[Any]], Result], *, label: str
) -> Iterator[tuple[list[Any], Result]]:
    """(batch, compute(batch)) of every batch; when memory runs out, this batch and all later ones are halved.

    Args:
        batches: items in batches; each result must depend on its items alone.
        compute: called once for every batch that fits.
        label: names the work in the message.

    Raises:
        torch.OutOfMemoryError, RuntimeError: if a single item does not fit.
    """
    waiting = deque(list(batch) for batch in batches)
    while waiting:
        batch = waiting.popleft()
        try:
            result = compute(batch)
        except (RuntimeError, MemoryError) as error:
            if len(batch) == 1 or not is_out_of_memory(error):
                raise
        else:
            yield batch, result
            continue
        waiting = deque(half for part in (batch, *waiting) for half in _halves(part))
        release_memory()
        say(f"{label}: out of memory; halves this batch of {len(batch)} rows and those that wait")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error says that a GPU's or the machine's memory is used up."""
    return isinstance(error, torch.OutOfMemoryError | MemoryError) or "DefaultCPUAllocator" in str(error)


def release_memory() -> None:
    """Give torch's unused GPU memory back."""
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _halves(batch: list[Any]) -> list[list[Any]]:
    middle = -(-len(batch) // 2)
    return [half for half in (batch[:middle], batch[middle:]) if half]


def _planned_bytes(device: torch.device) -> int:
    planned = int(free_bytes(device) * FRACTION)
    return planned if device.type == "cuda" else min(planned, CPU_BYTES)


def _power_of_two(limit: int) -> int:
    return 1 << max(0, limit.bit_length() - 1)


def _element_bytes(model: Any) -> int:
    """Bytes of an activation; 4-bit weights compute in at least two."""
    size: int = next(model.parameters()).element_size()
    return max(2, size)


def _machine_bytes() -> int:
    """MemAvailable; on systems without /proc 8 GiB."""
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return 8 << 30
    return next(int(line.split()[1]) << 10 for line in lines if line.startswith("MemAvailable"))


def _cgroup_bytes() -> int:
    """What a container's limit leaves; a large number without one."""
    try:
        limit = Path("/sys/fs/cgroup/memory.max").read_text().strip()
        used = int(Path("/sys/fs/cgroup/memory.current").read_text())
    except (OSError, ValueError):
        return 1 << 62
    return 1 << 62 if limit == "max" else max(0, int(limit) - used)
