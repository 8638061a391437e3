"""How responses are sampled."""

from dataclasses import dataclass

from omegaconf import MISSING

from alignlab.config.errors import require, require_one_of


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
