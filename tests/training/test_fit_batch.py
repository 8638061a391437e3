"""A batch that memory does not hold is taken in parts: the effective batch and what is learnt stay the same."""

import copy
import dataclasses

import pytest
import torch

from alignlab.config.schema import HardwareConfig
from alignlab.training import sft
from alignlab.training.loop import fit_batch
from alignlab.training.sft import train_full
from support.sharded import RECIPE

TRAINER = dataclasses.replace(
    RECIPE,
    learning_rate=1e-2,
    max_steps=2,
    per_device_train_batch_size=12,
    gradient_accumulation_steps=1,
    max_length=60,
    lr_scheduler_type="constant",
    save_steps=100,
)
CPU = HardwareConfig(device="cpu", bf16=False, processes=1, nodes=1, fsdp=False)


@pytest.mark.parametrize(
    ("rows_each", "longest", "max_tokens", "part"),
    [(1, 10, 1000, 12), (1, 10, 119, 6), (1, 10, 59, 4), (2, 10, 119, 4), (1, 500, 119, 1)],
)
def test_the_largest_divisor_that_fits_and_the_same_effective_batch(rows_each, longest, max_tokens, part):
    found = fit_batch(TRAINER, CPU, rows_each=rows_each, longest=longest, max_tokens=max_tokens)
    assert found.per_device_train_batch_size == part
    assert found.per_device_train_batch_size * found.gradient_accumulation_steps == 12


@pytest.mark.parametrize(
    ("processes", "accumulation", "max_tokens", "expected"),
    [
        (1, 2, 1000, (12, 2)),
        (2, 2, 1000, (12, 1)),
        (2, 1, 1000, (6, 1)),  # 12 do not fit into a half
        (4, 1, 1000, (3, 1)),
        (2, 3, 1000, (9, 2)),
        (2, 3, 40, (3, 6)),
    ],
)
def test_each_process_takes_its_part(processes, accumulation, max_tokens, expected):
    asked = dataclasses.replace(TRAINER, gradient_accumulation_steps=accumulation)
    hardware = dataclasses.replace(CPU, processes=processes)
    found = fit_batch(asked, hardware, rows_each=1, longest=10, max_tokens=max_tokens)
    assert (found.per_device_train_batch_size, found.gradient_accumulation_steps) == expected
    assert processes * expected[0] * expected[1] == 12 * accumulation


def test_sft_learns_the_same_in_parts(base, encoded_rows, tmp_path, monkeypatch):
    longest = max(len(row.prompt_ids) + len(row.response_ids) for row in encoded_rows)
    sizes = []

    def learnt(max_tokens):
        monkeypatch.setattr(sft, "token_budget", lambda *_, **__: max_tokens)
        model = copy.deepcopy(base.model).requires_grad_(True)
        handle = model.get_input_embeddings().register_forward_hook(lambda _, given, __: sizes.append(len(given[0])))
        settings = {"trainer": TRAINER, "hardware": CPU, "seed": 0, "adam_beta2": 0.999}
        trained = train_full(model, base.tokenizer, encoded_rows, checkpoints=tmp_path / str(max_tokens), **settings)
        handle.remove()
        return torch.cat([weights.detach().flatten() for weights in trained.parameters()])

    whole, parts = learnt(10_000), learnt(4 * longest)
    assert (sizes[0], sizes[-1]) == (12, 4)
    before = torch.cat([weights.flatten() for weights in base.model.parameters()])
    change = (whole - before).norm()
    assert change > 0.1, "control: something is learnt"
    assert (whole - parts).norm() < 1e-3 * change
