"""Batches are sized by tokens against memory and, on a CPU, against the time that people wait for a sign."""

from types import SimpleNamespace

import torch

from alignlab.engine import memory
from alignlab.engine.memory import batches_within, halving_on_oom, token_budget


def model_of(width: int, *, layers: int = 1) -> torch.nn.Module:
    """A model whose budget is asked; nothing is computed with it."""
    model = torch.nn.Sequential(*[torch.nn.Linear(width, width, bias=False) for _ in range(layers)])
    text = SimpleNamespace(hidden_size=width, intermediate_size=width, num_hidden_layers=layers, vocab_size=100)
    model.config = SimpleNamespace(get_text_config=lambda: text)
    return model


def test_a_forward_on_a_cpu_is_bounded_by_its_operations(monkeypatch):
    model = model_of(64)
    unbounded = token_budget(model)
    monkeypatch.setattr(memory, "CPU_OPERATIONS", 2 * 64 * 64 * 100)
    assert token_budget(model) == 64 < unbounded  # the power of two below 100
    assert token_budget(model, limit_operations=False) == unbounded


def test_a_larger_model_takes_fewer_tokens():
    assert token_budget(model_of(512, layers=8), backward=True) < token_budget(model_of(512), backward=True)
    assert token_budget(model_of(64), logits_copies=10_000) < token_budget(model_of(64))


def test_batches_keep_to_the_limit_and_a_row_beyond_it_is_alone():
    assert batches_within([3, 3, 3, 9, 1], max_tokens=6) == [[0, 1], [2], [3], [4]]
    assert batches_within([1, 1, 3], max_tokens=6, padded=True) == [[0, 1], [2]]
    assert batches_within([1, 1, 1], max_tokens=6, max_rows=2) == [[0, 1], [2]]
    assert batches_within([5, 1, 1, 1], max_tokens=6, first_sizes=[5, 5, 5, 5]) == [[0, 1], [2, 3]]


def test_out_of_memory_halves_and_every_item_is_computed_once():
    seen = []

    def compute(batch):
        if len(batch) > 2:
            raise torch.OutOfMemoryError
        seen.extend(batch)
        return sum(batch)

    results = list(halving_on_oom([[1, 2, 3, 4, 5], [6, 7]], compute, label="scoring"))
    assert sorted(seen) == [1, 2, 3, 4, 5, 6, 7]
    assert sum(total for _, total in results) == sum(seen)
