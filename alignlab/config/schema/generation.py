"""How continuations and responses are generated: in this process, or by a server."""

from dataclasses import dataclass
from typing import Any

from omegaconf import MISSING

from alignlab.config.schema.judge import require_patience, require_server
from alignlab.errors import require, require_one_of

_OWN_FIELDS = ("model", "prompt", "max_tokens", "temperature", "top_p", "n", "seed")
_OTHER_SHAPES = ("stream", "echo", "suffix", "best_of")


@dataclass
class GeneratorConfig:
    """What every generator has: how tokens are drawn, and how many."""

    kind: str = MISSING
    samples: int = MISSING
    prompts: int = MISSING
    temperature: float = MISSING
    top_p: float = MISSING
    max_new_tokens: int = MISSING
    """0: as long as the data's own responses are."""

    def __post_init__(self) -> None:
        require(self.samples > 0, "generator.samples", self.samples, "must be > 0")
        require(self.prompts > 0, "generator.prompts", self.prompts, "must be > 0")
        require(self.temperature >= 0, "generator.temperature", self.temperature, "must be >= 0")
        require(0 < self.top_p <= 1, "generator.top_p", self.top_p, "must be in (0, 1]")
        rule = "must be > 0, or 0 for the length of the data's own responses"
        require(self.max_new_tokens >= 0, "generator.max_new_tokens", self.max_new_tokens, rule)


@dataclass
class LocalGeneratorConfig(GeneratorConfig):
    """The run's own model, in this process."""

    batch_size: int = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("generator.kind", self.kind, ("transformers",))
        require(self.batch_size > 0, "generator.batch_size", self.batch_size, "must be > 0")


@dataclass
class ServerGeneratorConfig(GeneratorConfig):
    """An OpenAI-compatible server that holds the run's model and offers /v1/completions."""

    base_url: str = MISSING
    model: str | None = MISSING
    adapter_name: str | None = MISSING
    api_key_env: str | None = MISSING
    prompt_format: str = MISSING
    samples_per_call: int = MISSING
    send_seed: bool = MISSING
    extra_body: dict[str, Any] = MISSING
    workers: int = MISSING
    timeout_s: float = MISSING
    deadline_s: float = MISSING
    backoff_s: float = MISSING

    def __post_init__(self) -> None:
        super().__post_init__()
        require_one_of("generator.kind", self.kind, ("server",))
        require_server("generator", self.base_url, self.api_key_env)
        require(bool(self.model), "generator.model", "null", "must name the server's model")
        require_one_of("generator.prompt_format", self.prompt_format, ("tokens", "text"))
        require(self.samples_per_call > 0, "generator.samples_per_call", self.samples_per_call, "must be > 0")
        require_patience("generator", self.workers, self.timeout_s, self.deadline_s, self.backoff_s)
        for name in self.extra_body:
            key = f"generator.extra_body.{name}"
            require(name not in _OWN_FIELDS, key, self.extra_body[name], "has a key of its own or is set by the run")
            require(name not in _OTHER_SHAPES, key, self.extra_body[name], "would change the form of the answer")
