"""What has one of TRL's trainers train the same on any number of processes, whether these shard weights or not."""

from contextlib import ExitStack
from typing import Any

import torch
from torch.utils.data import DataLoader

from alignlab.config.schema import HardwareConfig
from alignlab.training.sampler import GroupedBatchSampler, SetEpoch
from alignlab.training.sharding import UnshardedCheckpoints


class SharedTraining(UnshardedCheckpoints):
    """Mixin of a transformers Trainer: steps of the same rows, whole checkpoints, bfloat16 by autocast."""

    accelerator: Any
    train_dataset: Any
    data_collator: Any
    add_callback: Any
    autocast = False
    """Compute in bfloat16 where args.bf16 does not; see `loop.training_arguments`."""

    def get_train_dataloader(self) -> DataLoader[Any]:
        """Batches in a random order of each epoch's own, the last step filled up from its beginning."""
        arguments, rows = self.args, self.train_dataset
        parts = arguments.gradient_accumulation_steps * arguments.world_size
        batch = arguments.train_batch_size * parts
        batches = GroupedBatchSampler(range(len(rows)), rows_per_step=batch, seed=arguments.data_seed, parts=parts)
        self.add_callback(SetEpoch(batches))
        loader: DataLoader[Any] = DataLoader(rows, batch_sampler=batches, collate_fn=self.data_collator)
        return self.accelerator.prepare(loader)  # type: ignore[no-any-return]

    def compute_loss_context_manager(self) -> ExitStack:
        """Transformers' own, and autocast."""
        stack: ExitStack = super().compute_loss_context_manager()  # type: ignore[misc]
        device = self.accelerator.device.type
        stack.enter_context(torch.autocast(device, dtype=torch.bfloat16, enabled=self.autocast))
        return stack

    def set_precision(self, hardware: HardwareConfig) -> None:
        """Take the precision of a run's hardware; call it before training."""
        assert self.is_fsdp_enabled or not hardware.fsdp, "accelerate shards nothing where it sees no GPU"
        self.autocast = hardware.bf16 and hardware.fsdp
