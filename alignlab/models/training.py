"""What every trainer shares: the recipe as transformers' arguments, resuming, the progress bar."""

import math
from pathlib import Path
from typing import Any

from transformers import PrinterCallback, TrainerCallback

from alignlab.config.batches import share_batch
from alignlab.config.schema import HardwareConfig, TrainerConfig
from alignlab.runs.progress import Bar, progress

NUM_CHECKPOINTS_KEPT = 2


class ProgressCallback(TrainerCallback):  # type: ignore[misc]
    """Moves a progress bar by optimizer steps."""

    def __init__(self, bar: Bar) -> None:
        self.bar = bar
        self.seen = 0

    def on_step_end(self, args: Any, state: Any, control: Any, **_: Any) -> None:
        """Advances to the global step; a resumed run starts where it stopped."""
        self.bar.advance(state.global_step - self.seen)
        self.seen = state.global_step


def run_trainer(engine: Any, checkpoints: Path) -> None:
    """Trains to the end under a progress bar, from the newest checkpoint if there is one."""
    engine.remove_callback(PrinterCallback)
    resumed = last_whole_checkpoint(checkpoints)
    with progress("training", _num_steps(engine)) as bar:
        engine.add_callback(ProgressCallback(bar))
        engine.train(resume_from_checkpoint=resumed)


def last_whole_checkpoint(checkpoints: Path) -> str | None:
    """The newest checkpoint that was written to its end; transformers writes trainer_state.json last."""
    found = [folder for folder in checkpoints.glob("checkpoint-*") if (folder / "trainer_state.json").is_file()]
    newest = max(found, key=lambda folder: int(folder.name.rpartition("-")[2]), default=None)
    return str(newest) if newest else None


def _num_steps(engine: Any) -> int:
    arguments = engine.args
    if arguments.max_steps > 0:
        return int(arguments.max_steps)
    per_step = arguments.train_batch_size * arguments.gradient_accumulation_steps * arguments.world_size
    steps_per_epoch = math.ceil(len(engine.train_dataset) / per_step)
    epochs: float = arguments.num_train_epochs
    return max(1, math.ceil(steps_per_epoch * epochs))


def training_arguments(trainer: TrainerConfig, hardware: HardwareConfig, *, seed: int) -> dict[str, Any]:
    """Transformers' training arguments; the effective batch is the same on any number of processes."""
    per_device, accumulation = share_batch(trainer, hardware.processes)
    return {
        "learning_rate": trainer.learning_rate,
        "num_train_epochs": trainer.num_train_epochs,
        "max_steps": trainer.max_steps,
        "per_device_train_batch_size": per_device,
        "gradient_accumulation_steps": accumulation,
        "lr_scheduler_type": trainer.lr_scheduler_type,
        "warmup_steps": trainer.warmup_ratio,  # transformers 5 reads a fraction as a share of all steps
        "weight_decay": trainer.weight_decay,
        "max_grad_norm": trainer.max_grad_norm,
        "gradient_checkpointing": trainer.gradient_checkpointing,
        "save_strategy": "steps",
        "save_steps": trainer.save_steps,
        "save_total_limit": NUM_CHECKPOINTS_KEPT,
        "logging_steps": trainer.logging_steps,
        "logging_nan_inf_filter": False,
        "bf16": hardware.bf16,
        "use_cpu": hardware.device == "cpu",
        "seed": seed,
        "data_seed": seed,
        "report_to": "none",
        "disable_tqdm": True,
    }
