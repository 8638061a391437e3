"""How an effective batch is shared among processes. Imports no torch."""

from alignlab.config.errors import ConfigError
from alignlab.config.schema import TrainerConfig


def share_batch(trainer: TrainerConfig, processes: int) -> tuple[int, int]:
    """(pairs per forward, forwards per step) of one of several processes, their product the asked batch / processes.

    Raises:
        ConfigError: if the batch cannot be shared evenly.
    """
    batch = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    if batch % processes:
        raise ConfigError(
            f"hardware.processes={processes}: must divide the effective batch of {batch} pairs "
            "(trainer.per_device_train_batch_size x trainer.gradient_accumulation_steps)"
        )
    share = batch // processes
    largest = min(trainer.per_device_train_batch_size, share)
    per_device = next(size for size in range(largest, 0, -1) if share % size == 0)
    return per_device, share // per_device
