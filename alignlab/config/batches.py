"""How an effective batch is shared among processes. Imports no torch."""

from alignlab.config.schema import TrainerConfig
from alignlab.errors import ConfigError


def share_batch(trainer: TrainerConfig, processes: int) -> int:
    """Pairs of an optimizer step that one of several processes computes, in however many forwards.

    Raises:
        ConfigError: if the batch cannot be shared evenly.
    """
    batch = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    if batch % processes:
        raise ConfigError(
            f"hardware.processes={processes}: must divide the effective batch of {batch} pairs "
            "(trainer.per_device_train_batch_size x trainer.gradient_accumulation_steps)"
        )
    return batch // processes
