"""How an effective batch is shared among processes. Imports no torch."""

from alignlab.config.schema import TrainerConfig
from alignlab.errors import ConfigError


def share_batch(trainer: TrainerConfig, processes: int) -> int:
    """Pairs of an optimizer step that one of several processes computes, in however many forwards.

    With trainer.sets_per_step ranked sets, not pairs.

    Raises:
        ConfigError: if the batch cannot be shared evenly.
    """
    if trainer.sets_per_step is not None:
        if trainer.sets_per_step % processes:
            rule = f"must divide trainer.sets_per_step={trainer.sets_per_step}"
            raise ConfigError(f"hardware.processes={processes}: {rule}")
        return trainer.sets_per_step // processes
    batch = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    if batch % processes:
        raise ConfigError(
            f"hardware.processes={processes}: must divide the effective batch of {batch} pairs "
            "(trainer.per_device_train_batch_size x trainer.gradient_accumulation_steps)"
        )
    return batch // processes
