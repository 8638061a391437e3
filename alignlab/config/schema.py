"""The typed configuration: every key, its type and its range. Defaults live in conf/, never here."""

import math
from collections.abc import Iterator
from dataclasses import dataclass, fields, is_dataclass
from typing import Any

from omegaconf import MISSING

from alignlab.config.errors import ConfigError, nearest, require, require_name, require_one_of, require_seed
from alignlab.config.names import JOBS, LOSSES, REFUSED_LOSSES, SCHEDULES, SMOOTHED_LOSSES

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
        for item in fields(self):
            value = getattr(self, item.name)
            require(value > 0, f"model.architecture.{item.name}", value, "must be > 0")
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
    lr_scheduler_type: str = MISSING
    warmup_ratio: float = MISSING
    adam_beta2: float = MISSING
    rows: int = MISSING
    seed: int = MISSING

    def __post_init__(self) -> None:
        require(self.num_train_epochs > 0, "model.pretraining.num_train_epochs", self.num_train_epochs, "must be > 0")
        require(self.batch_size > 0, "model.pretraining.batch_size", self.batch_size, "must be > 0")
        require(self.rows > 0, "model.pretraining.rows", self.rows, "must be > 0")
        require_seed("model.pretraining.seed", self.seed)
        require(self.learning_rate > 0, "model.pretraining.learning_rate", self.learning_rate, "must be > 0")


@dataclass
class ModelConfig:
    """What every model has."""

    kind: str = MISSING
    name: str = MISSING
    prompt_template: str | None = MISSING
    learning_rate: float = MISSING

    def __post_init__(self) -> None:
        require_name("model.name", self.name)
        require(self.learning_rate > 0, "model.learning_rate", self.learning_rate, "must be > 0")
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

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("model.kind", self.kind, ("tiny", "scratch"))


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
        require_one_of("model.kind", self.kind, ("hf",))
        require(
            bool(self.path),
            "model.path",
            self.path or "null",
            "must name a folder or a hub id, e.g. model.path=./my-model",
        )
        require_one_of("model.dtype", self.dtype, ("float32", "bfloat16", "float16"))


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
        require_name("dataset.name", self.name)
        require(bool(self.objectives), "dataset.objectives", "{}", "must name at least one objective")
        require(0 < self.beta < math.inf, "dataset.beta", self.beta, "must be a finite number > 0, in 1/nat")
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
        require_one_of("dataset.kind", self.kind, ("toy",))
        require(self.pairs > 0, "dataset.pairs", self.pairs, "must be > 0")
        require(self.exact_samples >= 100, "dataset.exact_samples", self.exact_samples, "must be >= 100")


@dataclass
class FileConfig(DatasetConfig):
    """A preference set from a file, a folder or the hub."""

    path: str | None = MISSING
    hub: str | None = MISSING
    revision: str | None = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.kind != "toy", "dataset.kind", self.kind, "is the embedded world, which has no file")
        require(bool(self.path or self.hub), "dataset.path", "null", "must name a file, or dataset.hub a hub dataset")


@dataclass
class RewardConfig:
    """Where an objective's reward comes from. null means: as the group `reward` says, or made by alignlab."""

    kind: str | None = None
    adapter: str | None = None
    beta: float | None = None

    def __post_init__(self) -> None:
        if self.kind is not None:
            require_one_of("reward.kind", self.kind, ("implicit", "gold"))
        number = isinstance(self.beta, int | float) and not isinstance(self.beta, bool)
        good = self.beta is None or (number and 0 < self.beta < math.inf)
        require(good, "reward.beta", self.beta, "must be a finite number > 0, in 1/nat")
        text = self.adapter is None or isinstance(self.adapter, str)
        require(text, "reward.adapter", self.adapter, "must be a folder")


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
        require_one_of("algorithm.loss_type", self.loss_type, LOSSES)
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
            try:
                self.rewards[objective] = RewardConfig(**settings)
            except ConfigError as error:
                raise ConfigError(str(error).replace("reward.", f"algorithm.rewards.{objective}.", 1)) from None


@dataclass
class EvaluateConfig(AlgorithmConfig):
    """Sample, score and compare with the reference, without training."""

    adapter: str | None = MISSING
    beta: float = MISSING

    def __post_init__(self) -> None:
        require(0 < self.beta < math.inf, "algorithm.beta", self.beta, "must be a finite number > 0, in 1/nat")


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
        require(self.weight_decay >= 0, "trainer.weight_decay", self.weight_decay, "must be >= 0")
        require(self.max_grad_norm > 0, "trainer.max_grad_norm", self.max_grad_norm, "must be > 0")
        require_one_of("trainer.lr_scheduler_type", self.lr_scheduler_type, SCHEDULES)


@dataclass
class WeightsConfig:
    """How w becomes one weight per objective."""

    scheme: str = MISSING

    def __post_init__(self) -> None:
        require_one_of("weights.scheme", self.scheme, ("convex", "penalty"))


@dataclass
class HardwareConfig:
    """Where a run computes. Does not change what it computes, so it is no part of the run folder's name."""

    device: str = MISSING
    processes: int = MISSING
    bf16: bool = MISSING

    def __post_init__(self) -> None:
        require_one_of("hardware.device", self.device, ("cpu", "cuda"))
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
        require_one_of("generator.kind", self.kind, ("transformers",))
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
        require_one_of("tracker.kind", self.kind, ("auto", "local", "wandb", "wandb_offline"))


@dataclass
class PathsConfig:
    """Where files go. No part of a run's identity."""

    runs: str = MISSING
    cache: str = MISSING

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            require(bool(value.strip()), f"paths.{item.name}", value, "must name a folder")


@dataclass
class RunConfig:
    """One run, whole."""

    w: Any = MISSING
    seed: int = MISSING
    force: bool = MISSING
    model: ModelConfig = MISSING
    dataset: DatasetConfig = MISSING
    algorithm: AlgorithmConfig = MISSING
    weights: WeightsConfig = MISSING
    peft: PeftConfig = MISSING
    reward: RewardConfig = MISSING
    trainer: TrainerConfig = MISSING
    generator: GeneratorConfig = MISSING
    hardware: HardwareConfig = MISSING
    tracker: TrackerConfig = MISSING
    paths: PathsConfig = MISSING

    def __post_init__(self) -> None:
        require_seed("seed", self.seed)
        if isinstance(self.dataset, ToyConfig):
            require_seed("dataset.seed", self.dataset.seed)
        require_one_of("algorithm.name", self.algorithm.name, JOBS)
        kind = VARIANTS["algorithm"][self.algorithm.name]
        require(type(self.algorithm) is kind, "algorithm.name", self.algorithm.name, "choose it by algorithm=NAME")
        for key, value in _numbers(self, ""):
            require(math.isfinite(value), key, value, "must be a finite number")


def _numbers(node: Any, prefix: str) -> Iterator[tuple[str, float]]:
    """Every float below a config, with its key; w has rules of its own."""
    for item in fields(node):
        value = getattr(node, item.name)
        if is_dataclass(value):
            yield from _numbers(value, f"{prefix}{item.name}.")
        elif isinstance(value, float) and item.name != "w":
            yield f"{prefix}{item.name}", value


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
