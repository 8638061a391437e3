"""One effective batch on any number of processes."""

import dataclasses

import pytest

from alignlab.config.batches import share_batch
from alignlab.config.schema import HardwareConfig
from alignlab.errors import ConfigError


@pytest.fixture
def trainer(run_of):
    return run_of().trainer


def on(processes, nodes=1):
    return HardwareConfig("cpu", processes, nodes, bf16=False, fsdp=False)


@pytest.mark.parametrize("processes", [1, 2, 3, 4, 6, 8, 12, 24])
@pytest.mark.parametrize(("per_device", "accumulation"), [(24, 1), (8, 3), (1, 24), (12, 2)])
def test_the_shares_are_the_batch_that_was_asked(trainer, per_device, accumulation, processes):
    asked = dataclasses.replace(
        trainer, per_device_train_batch_size=per_device, gradient_accumulation_steps=accumulation
    )
    assert share_batch(asked, on(processes)) * processes == 24


def test_an_uneven_share_is_refused(trainer):
    with pytest.raises(ConfigError, match=r"^hardware.processes=5: must divide the effective batch of 32 pairs"):
        share_batch(trainer, on(5))


def test_nodes_share_it_as_processes_do(trainer):
    assert share_batch(trainer, on(2, nodes=4)) == share_batch(trainer, on(8)) == 4
    with pytest.raises(ConfigError, match=r"^hardware.nodes=3: times hardware.processes=2 must divide the effective"):
        share_batch(trainer, on(2, nodes=3))
