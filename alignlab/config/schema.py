"""The typed configuration: every key, its type and its range. Defaults live in conf/, never here."""

import math
from dataclasses import dataclass, fields
from typing import Any

from omegaconf import MISSING

from alignlab.config.errors import ConfigError, nearest, require
from alignlab.config.names import LOSSES, REFUSED_LOSSES, SMOOTHED_LOSSES

MIN_MODPO_WEIGHT = 0.05
"""Smallest trained weight: the loss multiplies log-ratios by 1/w, and below this few pairs still carry gradient."""


@dataclass
class ArchitectureConfig:
    """Shape of a Llama that is trained from scratch."""

    vocab_size: int = MISSING
    hidden_size: int = MISSING
    intermediate_size: int = MISSING
    num_hidden_layers: int = MISSING
    num_attention_heads: int = MISSING
    max_position_embeddings: int = MISSING
    initializer_range: float = MISSING

    def __post_init__(self) -> None:
        require(
            self.hidden_size % self.num_attention_heads == 0,
            "model.architecture.hidden_size",
            self.hidden_size,
            f"must be a multiple of num_attention_heads={self.num_attention_heads}",
        )


@dataclass
class PretrainingConfig:
    """How a model that starts from random weights is taught the data's language (SFT on responses)."""

    num_train_epochs: float = MISSING
    batch_size: int = MISSING
    learning_rate: float = MISSING
    rows: int = MISSING
    seed: int = MISSING

    def __post_init__(self) -> None:
        require(self.num_train_epochs > 0, "model.pretraining.num_train_epochs", self.num_train_epochs, "must be > 0")
        require(self.batch_size > 0, "model.pretraining.batch_size", self.batch_size, "must be > 0")
        require(self.learning_rate > 0, "model.pretraining.learning_rate", self.learning_rate, "must be > 0")


@dataclass
class ModelConfig:
    """What every model has."""

    kind: str = MISSING
    name: str = MISSING
    prompt_template: str | None = MISSING
    learning_rate: float = MISSING

    def __post_init__(self) -> None:
        template = self.prompt_template
        require(
            template is None or "{raw_prompt}" in template,
            "model.prompt_template",
            repr(template),
            "must contain {raw_prompt}, or be null for the model's own chat template",
        )


@dataclass
class FromScratchConfig(ModelConfig):
    """A small Llama that alignlab trains itself: `tiny` (the toy's words) and `scratch` (a BPE of the data)."""

    architecture: ArchitectureConfig = MISSING
    pretraining: PretrainingConfig = MISSING


@dataclass
class PretrainedConfig(ModelConfig):
    """Any causal language model in transformers' format, from a folder or the hub."""

    path: str | None = MISSING
    revision: str | None = MISSING
    adapter: str | None = MISSING
    dtype: str = MISSING
    attn_implementation: str = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(bool(self.path), "model.path", self.path, "must name a folder or a hub id, e.g. model.path=./my-model")
        choices = ("float32", "bfloat16", "float16")
        require(self.dtype in choices, "model.dtype", self.dtype, nearest(self.dtype, choices))


@dataclass
class ObjectiveConfig:
    """One thing to be good at: which column ranks the responses by it."""

    label: str = MISSING
    gold: str | None = None


@dataclass
class DatasetConfig:
    """What every preference set has."""

    kind: str = MISSING
    name: str = MISSING
    objectives: dict[str, ObjectiveConfig] = MISSING
    split: str | None = MISSING
    test_share: float = MISSING
    max_rows: int | None = MISSING
    beta: float = MISSING

    def __post_init__(self) -> None:
        splits = ("train", "test")
        require(
            self.split is None or self.split in splits,
            "dataset.split",
            self.split,
            f"{nearest(str(self.split), splits)}, or null for all rows",
        )
        require(0 < self.test_share < 1, "dataset.test_share", self.test_share, "must be between 0 and 1")
        require(self.max_rows is None or self.max_rows > 0, "dataset.max_rows", self.max_rows, "must be > 0 or null")


@dataclass
class ToyConfig(DatasetConfig):
    """The embedded world: pairs are sampled from the reference and labelled by known rewards."""

    pairs: int = MISSING
    seed: int = MISSING
    exact_samples: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.pairs > 0, "dataset.pairs", self.pairs, "must be > 0")
        require(self.exact_samples >= 100, "dataset.exact_samples", self.exact_samples, "must be >= 100")


@dataclass
class FileConfig(DatasetConfig):
    """A preference set from a file, a folder or the hub."""

    path: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING


@dataclass
class RewardConfig:
    """Where an objective's reward comes from. null means: as the group `reward` says, or made by alignlab."""

    kind: str | None = None
    adapter: str | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        choices = ("implicit", "gold")
        require(self.kind is None or self.kind in choices, "reward.kind", self.kind, nearest(str(self.kind), choices))
        require(self.beta is None or self.beta > 0, "reward.beta", self.beta, "must be > 0")


@dataclass
class AlgorithmConfig:
    """What every algorithm has."""

    name: str = MISSING


@dataclass
class PreferenceConfig(AlgorithmConfig):
    """DPO and its kin: `dpo`, `reward_model`."""

    objective: str | None = MISSING
    beta: float = MISSING
    loss_type: str = MISSING
    label_smoothing: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")
        if self.loss_type in REFUSED_LOSSES:
            raise ConfigError(f"algorithm.loss_type={self.loss_type}: refused, it {REFUSED_LOSSES[self.loss_type]}")
        require(self.loss_type in LOSSES, "algorithm.loss_type", self.loss_type, nearest(self.loss_type, LOSSES))
        require(
            0 <= self.label_smoothing < 0.5, "algorithm.label_smoothing", self.label_smoothing, "must be in [0, 0.5)"
        )
        if self.loss_type in SMOOTHED_LOSSES:
            require(
                self.label_smoothing > 0,
                "algorithm.label_smoothing",
                self.label_smoothing,
                f"must be > 0 with algorithm.loss_type={self.loss_type}",
            )


@dataclass
class ModpoConfig(PreferenceConfig):
    """DPO against a reference that the other objectives' rewards tilt."""

    rewards: dict[str, Any] = MISSING
    """Objective -> RewardConfig. Untyped for Hydra, which cannot add a typed entry from the command line."""

    def __post_init__(self) -> None:
        super().__post_init__()
        known = {item.name for item in fields(RewardConfig)}
        for objective, given in self.rewards.items():
            settings = given if isinstance(given, dict) else {"": given}
            for name in settings:
                require(name in known, f"algorithm.rewards.{objective}.{name}", settings[name], nearest(name, known))
            self.rewards[objective] = RewardConfig(**settings)


@dataclass
class EvaluateConfig(AlgorithmConfig):
    """Sample, score and compare with the reference, without training."""

    adapter: str | None = MISSING
    beta: float = MISSING


@dataclass
class FrontConfig(AlgorithmConfig):
    """Collect runs into a front."""

    runs: list[str] = MISSING


@dataclass
class PeftConfig:
    """The LoRA adapter that is trained."""

    r: int = MISSING
    alpha: float = MISSING
    dropout: float = MISSING
    target_modules: Any = MISSING

    def __post_init__(self) -> None:
        require(self.r > 0, "peft.r", self.r, "must be > 0")
        require(0 <= self.dropout < 1, "peft.dropout", self.dropout, "must be in [0, 1)")


@dataclass
class TrainerConfig:
    """The optimiser's recipe, in TRL's words. One effective batch, however many processes share it."""

    learning_rate: float = MISSING
    num_train_epochs: float = MISSING
    max_steps: int = MISSING
    per_device_train_batch_size: int = MISSING
    gradient_accumulation_steps: int = MISSING
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
        require(self.max_steps == -1 or self.max_steps > 0, "trainer.max_steps", self.max_steps, "must be > 0, or -1")
        require(self.max_length > 1, "trainer.max_length", self.max_length, "must be > 1 token")
        require(0 <= self.warmup_ratio < 1, "trainer.warmup_ratio", self.warmup_ratio, "must be in [0, 1)")


@dataclass
class WeightsConfig:
    """How w becomes one weight per objective."""

    scheme: str = MISSING

    def __post_init__(self) -> None:
        choices = ("convex", "penalty")
        require(self.scheme in choices, "weights.scheme", self.scheme, nearest(self.scheme, choices))


@dataclass
class HardwareConfig:
    """Where a run computes. Does not change what it computes, so it is no part of the run folder's name."""

    device: str = MISSING
    processes: int = MISSING
    bf16: bool = MISSING

    def __post_init__(self) -> None:
        choices = ("cpu", "cuda")
        require(self.device in choices, "hardware.device", self.device, nearest(self.device, choices))
        require(self.processes > 0, "hardware.processes", self.processes, "must be > 0")


@dataclass
class GeneratorConfig:
    """How responses are sampled for evaluation."""

    kind: str = MISSING
    samples: int = MISSING
    temperature: float = MISSING
    top_p: float = MISSING
    max_new_tokens: int = MISSING
    batch_size: int = MISSING

    def __post_init__(self) -> None:
        require(self.samples > 0, "generator.samples", self.samples, "must be > 0")
        require(self.temperature > 0, "generator.temperature", self.temperature, "must be > 0")
        require(0 < self.top_p <= 1, "generator.top_p", self.top_p, "must be in (0, 1]")
        require(self.max_new_tokens > 0, "generator.max_new_tokens", self.max_new_tokens, "must be > 0")
        require(self.batch_size > 0, "generator.batch_size", self.batch_size, "must be > 0")


@dataclass
class TrackerConfig:
    """Where training metrics go beside the run folder."""

    kind: str = MISSING
    project: str = MISSING

    def __post_init__(self) -> None:
        choices = ("auto", "local", "wandb", "wandb_offline")
        require(self.kind in choices, "tracker.kind", self.kind, nearest(self.kind, choices))


@dataclass
class PathsConfig:
    """Where files go. No part of a run's identity."""

    runs: str = MISSING
    cache: str = MISSING


@dataclass
class RunConfig:
    """One run, whole."""

    w: Any = MISSING
    seed: int = MISSING
    force: bool = MISSING
    algorithm: AlgorithmConfig = MISSING
    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    weights: WeightsConfig = MISSING
    peft: PeftConfig = MISSING
    reward: RewardConfig = MISSING
    trainer: TrainerConfig = MISSING
    generator: GeneratorConfig = MISSING
    hardware: HardwareConfig = MISSING
    tracker: TrackerConfig = MISSING
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        require(0 <= self.seed < 2**32, "seed", self.seed, "must be in [0, 2**32)")


VARIANTS: dict[str, dict[str, type[Any]]] = {
    "model": {"from_scratch": FromScratchConfig, "pretrained": PretrainedConfig},
    "dataset": {"toy": ToyConfig, "file": FileConfig},
    "algorithm": {
        "sft": AlgorithmConfig,
        "reward_model": PreferenceConfig,
        "dpo": PreferenceConfig,
        "modpo": ModpoConfig,
        "evaluate": EvaluateConfig,
        "front": FrontConfig,
    },
}
"""Groups whose choices differ in their keys: group -> schema name -> type."""
