"""How an effective batch is shared among processes. Imports no torch."""

from alignlab.config.schema import HardwareConfig, TrainerConfig
from alignlab.errors import ConfigError


def share_batch(trainer: TrainerConfig, hardware: HardwareConfig) -> int:
    """Pairs of an optimizer step that one of all nodes' processes computes, in however many forwards.

    With trainer.sets_per_step ranked sets, not pairs.

    Raises:
        ConfigError: if the batch cannot be shared evenly.
    """
    processes, what = hardware.world_size, f"hardware.processes={hardware.processes}: must divide"
    if hardware.nodes > 1:
        what = f"hardware.nodes={hardware.nodes}: times hardware.processes={hardware.processes} must divide"
    if trainer.sets_per_step is not None:
        if trainer.sets_per_step % processes:
            raise ConfigError(f"{what} trainer.sets_per_step={trainer.sets_per_step}")
        return trainer.sets_per_step // processes
    batch = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    if batch % processes:
        raise ConfigError(
            f"{what} the effective batch of {batch} pairs "
            "(trainer.per_device_train_batch_size x trainer.gradient_accumulation_steps)"
        )
    return batch // processes
