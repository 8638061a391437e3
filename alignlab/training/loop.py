"""What every trainer shares: the configuration as transformers' arguments, resuming, stopping, the progress bar."""

import math
import shutil
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import Any

from accelerate.utils import broadcast_object_list
from torch import nn
from transformers import PrinterCallback

from alignlab.config.batches import share_batch
from alignlab.config.schema import HardwareConfig, TrainerConfig
from alignlab.runs.progress import say
from alignlab.runs.signals import finishing_steps
from alignlab.training.callbacks import ProgressCallback, StepLosses, StopOnNonFinite, StopOnSignal, diverged
from alignlab.training.checkpoints import CheckpointManifest, is_at_the_end, last_whole_checkpoint

NUM_CHECKPOINTS_KEPT = 2


def run_trainer(
    hf_trainer: Any,
    checkpoints: Path,
    *,
    step_losses: StepLosses | None = None,
    divergence: Callable[[], str | None] | None = None,
    uniform_loss: float = math.inf,
) -> None:
    """Train to the end under a progress bar, from the newest whole checkpoint if there is one.

    Args:
        hf_trainer: a transformers Trainer.
        checkpoints: the folder of its checkpoints.
        step_losses: the trainer, if it keeps the losses of a step's rows for error messages.
        divergence: returns at the end what is wrong with the trained model, or None; by default by the logged losses.
        uniform_loss: loss of a uniform guess over the vocabulary, nats; a model that starts below it must end below.

    Raises:
        FloatingPointError: if loss or gradient is not finite; names step and rows.
        ArithmeticError: if the training diverged. Its checkpoints are removed.
        Terminated: if a signal came; the step at hand was finished and a checkpoint saved.
    """
    hf_trainer.remove_callback(PrinterCallback)
    resumed = _same_everywhere(hf_trainer, last_whole_checkpoint(checkpoints))
    if resumed:
        say(f"resumes from {resumed}")
    if resumed and is_at_the_end(resumed):
        hf_trainer._load_from_checkpoint(resumed)  # train() would take one step more: it looks for the end after a step
        return
    with ExitStack() as bars, finishing_steps() as request:
        guard = StopOnNonFinite(at_once=hf_trainer.args.device.type == "cpu", trainer=step_losses)
        manifest = CheckpointManifest(hf_trainer)
        for callback in (ProgressCallback(bars), guard, manifest, StopOnSignal(request)):
            hf_trainer.add_callback(callback)
        hf_trainer.train(resume_from_checkpoint=resumed)
        if hf_trainer.state.global_step < hf_trainer.state.max_steps:
            return  # a signal stopped it: leaving the block ends the job
        fault = divergence() if divergence is not None else _loss_divergence(hf_trainer, uniform_loss)
        if fault is not None:
            if hf_trainer.accelerator.is_main_process:
                shutil.rmtree(checkpoints, ignore_errors=True)
            rate = f"lower trainer.learning_rate={hf_trainer.args.learning_rate:g}"
            raise ArithmeticError(f"training diverged: {fault}; {rate}")
        manifest.write_last()


def _same_everywhere(hf_trainer: Any, checkpoint: str | None) -> str | None:
    """The first process's checkpoint: a file system on a network may not show all of them the same moment."""
    if hf_trainer.args.world_size == 1:
        return checkpoint
    found = [checkpoint]
    broadcast_object_list(found)
    return found[0]


def _loss_divergence(hf_trainer: Any, uniform_loss: float) -> str | None:
    """Compare the last half of the logged losses with the first one, which is of the first step alone."""
    losses = [line["loss"] for line in hf_trainer.state.log_history if "loss" in line]
    late = losses[max(1, len(losses) // 2) :]
    return diverged(sum(late) / len(late), losses[0], uniform_loss=uniform_loss) if late else None


def turn_off_dropout(model: nn.Module) -> None:
    """Turn a model's own dropout off, before it gets an adapter: what peft.dropout asks of that stays."""
    for module in model.modules():
        if isinstance(module, nn.Dropout):
            module.p = 0.0


def fit_batch(
    trainer: TrainerConfig, hardware: HardwareConfig, *, rows_each: int, longest: int, max_tokens: int
) -> TrainerConfig:
    """The settings of each process: its part of the effective batch, in batches that do not take too many tokens.

    A batch is the largest divisor of the part that fits, at least 1 and at most what was asked; the rest accumulates.
    The process that starts the others decides: all of them must take equally many.

    Args:
        trainer: the optimiser's settings.
        hardware: says how many processes share the effective batch.
        rows_each: rows of text of one entry of a batch: 2 for a pair.
        longest: tokens of the longest row; shorter ones are padded to it.
        max_tokens: of one forward, padding included.
    """
    rows = share_batch(trainer, hardware)
    most = min(trainer.per_device_train_batch_size, max_tokens // (rows_each * longest))
    size = max((part for part in range(1, most + 1) if rows % part == 0), default=1)
    return replace(trainer, per_device_train_batch_size=size, gradient_accumulation_steps=rows // size)


def training_arguments(trainer: TrainerConfig, hardware: HardwareConfig, *, seed: int) -> dict[str, Any]:
    """Transformers' training arguments, for one process.

    Args:
        trainer: the optimiser's settings; its batches are this process's.
        hardware: device and precision.
        seed: of adapter initialisation and row order.
    """
    return {
        "learning_rate": trainer.learning_rate,
        "num_train_epochs": trainer.num_train_epochs,
        "max_steps": trainer.max_steps,
        "per_device_train_batch_size": trainer.per_device_train_batch_size,
        "gradient_accumulation_steps": trainer.gradient_accumulation_steps,
        "lr_scheduler_type": trainer.lr_scheduler_type,
        "warmup_steps": trainer.warmup_ratio,  # transformers 5 reads a fraction as a fraction of all steps
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": trainer.save_steps,
        "save_total_limit": NUM_CHECKPOINTS_KEPT,
        "logging_steps": trainer.logging_steps,
        "logging_nan_inf_filter": False,
        "bf16": hardware.bf16 and not hardware.fsdp,  # it would round norms and summed gradients of shared weights
        "fsdp": hardware.fsdp,
        "accelerator_config": {
            "non_blocking": hardware.device == "cuda",  # the next batch is laid out meanwhile
            "even_batches": False,  # every step is whole already
        },
        "use_cpu": hardware.device == "cpu",
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
