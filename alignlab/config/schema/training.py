"""How a run trains: adapter, recipe, weights of the objectives, hardware."""

from dataclasses import dataclass, replace
from typing import Any

from omegaconf import MISSING

from alignlab.config.names import SCHEDULES
from alignlab.config.schema.ranges import check_ranges, within
from alignlab.errors import require, require_one_of


@dataclass
class PeftConfig:
    """The LoRA adapter that is trained."""

    r: int = within("[1, 65536]")
    alpha: float = within("(0, 1e6]")
    dropout: float = within("[0, 1)")
    target_modules: Any = MISSING

    def __post_init__(self) -> None:
        check_ranges("peft", self)
        modules = self.target_modules
        names = [modules] if isinstance(modules, str) else modules
        good = isinstance(names, list) and bool(names) and all(isinstance(name, str) and name for name in names)
        require(good, "peft.target_modules", modules, "must be all-linear or a list of names, e.g. [q_proj,v_proj]")


@dataclass
class TrainerConfig:
    """The optimiser's recipe, in TRL's words. One effective batch, however many processes share it."""

    learning_rate: float = within("(0, 100]")
    num_train_epochs: float = within("(0, 1e6]")
    max_steps: int = MISSING
    per_device_train_batch_size: int = within("[1, 1e6]")
    gradient_accumulation_steps: int = within("[1, 1e6]")
    max_tokens_per_forward: int | None = within("[1, 1e9]")
    sets_per_step: int | None = within("[1, 1e6]")
    """Ranked sets of an optimizer step, however many pairs they make; None for a batch of pairs."""
    per_device_eval_batch_size: int = within("[1, 1e6]")
    max_length: int = within("[2, 1e7]")
    lr_scheduler_type: str = MISSING
    warmup_ratio: float = within("[0, 1)")
    weight_decay: float = within("[0, 1e3]")
    max_grad_norm: float = within("(0, 1e9]")
    gradient_checkpointing: bool = MISSING
    save_steps: int = within("[1, 1e9]")
    logging_steps: int = within("[1, 1e9]")

    def __post_init__(self) -> None:
        check_ranges("trainer", self)
        good = self.max_steps == -1 or 0 < self.max_steps <= 1e9
        require(good, "trainer.max_steps", self.max_steps, "must be in [1, 1e9], or -1")
        require_one_of("trainer.lr_scheduler_type", self.lr_scheduler_type, SCHEDULES)


@dataclass
class WeightsConfig:
    """How w becomes one weight per objective."""

    scheme: str = MISSING

    def __post_init__(self) -> None:
        require_one_of("weights.scheme", self.scheme, ("convex", "penalty", "vector"))


@dataclass
class HardwareConfig:
    """Where a run computes. Does not change what it computes, so it is no part of the run folder's name."""

    device: str = MISSING
    processes: int = within("[1, 4096]")
    """Of each node."""
    nodes: int = within("[1, 1024]")
    """Machines on which the same command is started; see runs/place.py."""
    bf16: bool = MISSING
    fsdp: bool = MISSING
    """Shard the model's weights among the training processes, in place of a copy in each."""

    def __post_init__(self) -> None:
        require_one_of("hardware.device", self.device, ("cpu", "cuda"))
        check_ranges("hardware", self)
        rule = "needs hardware.device=cuda and hardware.processes > 1"
        require(not self.fsdp or (self.device == "cuda" and self.world_size > 1), "hardware.fsdp", "true", rule)

    @property
    def world_size(self) -> int:
        """Training processes of all nodes."""
        return self.processes * self.nodes

    def on_one_process(self) -> "HardwareConfig":
        """The same device for what only one process trains."""
        return replace(self, processes=1, nodes=1, fsdp=False)
