"""How a run trains: adapter, recipe, weights of the objectives, hardware."""

from dataclasses import dataclass, replace
from typing import Any

from omegaconf import MISSING

from alignlab.config.names import SCHEDULES
from alignlab.errors import require, require_one_of


@dataclass
class PeftConfig:
    """The LoRA adapter that is trained."""

    r: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    target_modules: Any = MISSING

    def __post_init__(self) -> None:
        require(self.r > 0, "peft.r", self.r, "must be > 0")
        require(self.alpha > 0, "peft.alpha", self.alpha, "must be > 0")
        modules = self.target_modules
        named = isinstance(modules, list) and all(isinstance(name, str) for name in modules) and modules
        require(isinstance(modules, str) or bool(named), "peft.target_modules", modules, "must be all-linear or a list")
        require(0 <= self.dropout < 1, "peft.dropout", self.dropout, "must be in [0, 1)")


@dataclass
class TrainerConfig:
    """The optimiser's recipe, in TRL's words. One effective batch, however many processes share it."""

    learning_rate: float = MISSING
    num_train_epochs: float = MISSING
    max_steps: int = MISSING
    per_device_train_batch_size: int = MISSING
    gradient_accumulation_steps: int = MISSING
    max_tokens_per_forward: int | None = MISSING
    sets_per_step: int | None = MISSING
    """Ranked sets of an optimizer step, however many pairs they make; None for a batch of pairs."""
    per_device_eval_batch_size: int = MISSING
    max_length: int = MISSING
    lr_scheduler_type: str = MISSING
    warmup_ratio: float = MISSING
    weight_decay: float = MISSING
    max_grad_norm: float = MISSING
    gradient_checkpointing: bool = MISSING
    save_steps: int = MISSING
    logging_steps: int = MISSING

    def __post_init__(self) -> None:
        positive = (
            "learning_rate",
            "num_train_epochs",
            "per_device_train_batch_size",
            "gradient_accumulation_steps",
            "per_device_eval_batch_size",
            "save_steps",
            "logging_steps",
        )
        for name in positive:
            require(getattr(self, name) > 0, f"trainer.{name}", getattr(self, name), "must be > 0")
        tokens = self.max_tokens_per_forward
        require(tokens is None or tokens > 0, "trainer.max_tokens_per_forward", tokens, "must be > 0, or null")
        sets = self.sets_per_step
        require(sets is None or sets > 0, "trainer.sets_per_step", sets, "must be > 0, or null")
        require(self.max_steps == -1 or self.max_steps > 0, "trainer.max_steps", self.max_steps, "must be > 0, or -1")
        require(self.max_length > 1, "trainer.max_length", self.max_length, "must be > 1 token")
        require(0 <= self.warmup_ratio < 1, "trainer.warmup_ratio", self.warmup_ratio, "must be in [0, 1)")
        require(self.weight_decay >= 0, "trainer.weight_decay", self.weight_decay, "must be >= 0")
        require(self.max_grad_norm > 0, "trainer.max_grad_norm", self.max_grad_norm, "must be > 0")
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
    processes: int = MISSING
    bf16: bool = MISSING
    fsdp: bool = MISSING
    """Training processes share the model's weights out, where each would hold all of them."""

    def __post_init__(self) -> None:
        require_one_of("hardware.device", self.device, ("cpu", "cuda"))
        require(self.processes > 0, "hardware.processes", self.processes, "must be > 0")
        rule = "needs hardware.device=cuda and hardware.processes > 1"
        require(not self.fsdp or (self.device == "cuda" and self.processes > 1), "hardware.fsdp", "true", rule)

    def on_one_process(self) -> "HardwareConfig":
        """The same device for what only one process trains."""
        return replace(self, processes=1, fsdp=False)
