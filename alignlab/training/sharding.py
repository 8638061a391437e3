"""FSDP2: gather sharded weights, and checkpoints that do not depend on the number of processes.

A checkpoint holds whole tensors, in the files of an unsharded training, so a run resumes on any hardware. Only the
trained weights are gathered for it; transformers would gather a frozen base too.
"""

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor
from torch.distributed.tensor import DTensor, distribute_tensor
from transformers.trainer import OPTIMIZER_NAME, SCHEDULER_NAME
from transformers.utils import SAFE_WEIGHTS_NAME


def unsharded(value: Any) -> Any:
    """The full tensor of a sharded one; every process must call this. Anything else is returned as it is."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def own_part(value: Tensor, like: Tensor) -> Tensor:
    """This process's shard of a whole tensor, sharded as `like` is."""
    if not isinstance(like, DTensor) or value.shape != like.shape:
        return value
    return distribute_tensor(value, like.device_mesh, like.placements, src_data_rank=None)


def trained_weights(model: torch.nn.Module) -> dict[str, Tensor]:
    """The trained weights by name, gathered; every process must call this."""
    return {name: unsharded(weights.detach()) for name, weights in model.named_parameters() if weights.requires_grad}


class UnshardedCheckpoints:
    """Mixin: a transformers Trainer writes and reads whole checkpoints where its weights are sharded."""

    args: Any
    model: Any
    optimizer: Any
    lr_scheduler: Any
    is_fsdp_enabled: bool

    def train(self, resume_from_checkpoint: str | None = None, **named: Any) -> Any:
        """Load what was trained before its weights are sharded, and train."""
        if self.is_fsdp_enabled and resume_from_checkpoint:
            self._load_from_checkpoint(resume_from_checkpoint)
        return super().train(resume_from_checkpoint, **named)  # type: ignore[misc]

    def _load_from_checkpoint(self, checkpoint: str, model: Any = None) -> None:
        if model is not None:  # transformers asks again once they are sharded; `train` has loaded them before
            return
        weights = Path(checkpoint) / SAFE_WEIGHTS_NAME
        if self.is_fsdp_enabled and weights.is_file():  # no adapter; transformers would look for FSDP's own files
            self.model.load_state_dict(load_file(weights), strict=False)
        else:
            super()._load_from_checkpoint(checkpoint)  # type: ignore[misc]

    def _load_optimizer_and_scheduler(self, checkpoint: str | None) -> None:
        if not self.is_fsdp_enabled or checkpoint is None:
            super()._load_optimizer_and_scheduler(checkpoint)  # type: ignore[misc]
            return
        moments = torch.load(Path(checkpoint) / OPTIMIZER_NAME, map_location="cpu", weights_only=True)
        weights = [weight for group in self.optimizer.param_groups for weight in group["params"]]
        for number, state in moments["state"].items():
            state.update({name: own_part(value, weights[number]) for name, value in state.items()})
        self.optimizer.load_state_dict(moments)
        self.lr_scheduler.load_state_dict(torch.load(Path(checkpoint) / SCHEDULER_NAME, weights_only=True))

    def _save_optimizer_and_scheduler(self, folder: str) -> None:
        if not self.is_fsdp_enabled:
            super()._save_optimizer_and_scheduler(folder)  # type: ignore[misc]
            return
        moments = self.optimizer.state_dict()
        for number, state in moments["state"].items():
            moments["state"][number] = {name: unsharded(value) for name, value in state.items()}
        if self.args.should_save:
            torch.save(moments, Path(folder) / OPTIMIZER_NAME)
            torch.save(self.lr_scheduler.state_dict(), Path(folder) / SCHEDULER_NAME)

    def save_model(self, output_dir: str | None = None, _internal_call: bool = False) -> None:
        """What is trained alone, whole."""
        if self.is_fsdp_enabled:
            self._save(output_dir, state_dict=trained_weights(self.model))  # type: ignore[attr-defined]
        else:
            super().save_model(output_dir, _internal_call)  # type: ignore[misc]
