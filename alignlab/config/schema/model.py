"""Models: what is trained, and how a request becomes its prompt."""

from dataclasses import dataclass

from omegaconf import MISSING

from alignlab.config.names import SCHEDULES
from alignlab.config.schema.ranges import check_ranges, within
from alignlab.errors import require, require_fields, require_name, require_one_of, require_seed


@dataclass
class ArchitectureConfig:
    """Shape of a Llama that is trained from scratch."""

    vocab_size: int = within("[1, 1e7]")
    hidden_size: int = within("[1, 65536]")
    intermediate_size: int = within("[1, 1e6]")
    num_hidden_layers: int = within("[1, 1000]")
    num_attention_heads: int = within("[1, 65536]")
    max_position_embeddings: int = within("[1, 1e7]")
    initializer_range: float = within("(0, 10]")

    def __post_init__(self) -> None:
        check_ranges("model.architecture", self)
        require(
            self.hidden_size % self.num_attention_heads == 0,
            "model.architecture.hidden_size",
            self.hidden_size,
            f"must be a multiple of num_attention_heads={self.num_attention_heads}",
        )


@dataclass
class PretrainingConfig:
    """How a model that starts from random weights is taught the data's language (SFT on responses)."""

    num_train_epochs: float = within("(0, 1e6]")
    batch_size: int = within("[1, 1e6]")
    learning_rate: float = within("(0, 100]")
    lr_scheduler_type: str = MISSING
    warmup_ratio: float = within("[0, 1)")
    adam_beta2: float = within("[0, 1)")
    rows: int = within("[1, 1e9]")
    seed: int = MISSING

    def __post_init__(self) -> None:
        check_ranges("model.pretraining", self)
        require_one_of("model.pretraining.lr_scheduler_type", self.lr_scheduler_type, SCHEDULES)
        require_seed("model.pretraining.seed", self.seed)


@dataclass
class ModelConfig:
    """What every model has."""

    kind: str = MISSING
    name: str = MISSING
    prompt_template: str | None = MISSING
    learning_rate: float = within("(0, 100]")

    def __post_init__(self) -> None:
        require_name("model.name", self.name)
        check_ranges("model", self)
        template = self.prompt_template
        require(
            template is None or "{raw_prompt}" in template,
            "model.prompt_template",
            repr(template),
            "must contain {raw_prompt}, or be null for the model's own chat template",
        )
        require_fields("model.prompt_template", template, ("raw_prompt",))
        typed = "holds \\n as two characters; the shell writes a line break in $'...\\n...', YAML in double quotes"
        require(template is None or "\\n" not in template, "model.prompt_template", template, typed)


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
    quantization: str | None = MISSING
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
        require(
            self.quantization in (None, "nf4"), "model.quantization", self.quantization, "must be nf4, or null for none"
        )
        unmerged = self.quantization is None or self.adapter is None
        rule = "cannot be merged into 4-bit weights; merge it into a copy of the model first"
        require(unmerged, "model.adapter", self.adapter, rule)
