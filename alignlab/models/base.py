"""Loads a base model with its tokenizer and says what exactly was loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from alignlab.config.identity import fingerprint
from alignlab.config.schema import ModelConfig, PretrainedConfig
from alignlab.models.merge import merge_adapter
from alignlab.models.prompts import PromptEncoder


@dataclass
class Base:
    """A frozen causal language model, the reference of every run on it."""

    model: Any
    tokenizer: Any
    encoder: PromptEncoder
    path: str
    id: str
    """Hash of weights and tokenizer: what adapters are tied to."""
    autocast: bool = False
    """Compute in bfloat16 where training does, so that policy and reference take one numeric path."""
    revision: str | None = None

    @property
    def scorer(self) -> str:
        """What log-probabilities depend on: the weights, and the precision in which they are computed."""
        return f"{self.id}:{self.model.dtype}{'+autocast' if self.autocast else ''}"

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]


def load_base(config: ModelConfig, *, folder: Path | None, device: str, autocast: bool = False) -> Base:
    """The base model in evaluation mode, without gradients.

    Args:
        config: the model's settings.
        folder: where a from-scratch reference lies; None for a pretrained model.
        device: cpu or cuda.
        autocast: compute in bfloat16, whatever the weights' type.
    """
    if isinstance(config, PretrainedConfig):
        path, dtype = str(config.path), getattr(torch, config.dtype)
        options = {"revision": config.revision, "attn_implementation": config.attn_implementation}
    else:
        path, dtype, options = str(folder), torch.float32, {"attn_implementation": "sdpa"}
    tokenizer = AutoTokenizer.from_pretrained(path, revision=options.get("revision"))
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
    if isinstance(config, PretrainedConfig) and config.adapter:
        model = _merged(model, config.adapter)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = model.to(device).eval().requires_grad_(False)
    encoder = PromptEncoder(tokenizer, config.prompt_template)
    revision = getattr(model.config, "_commit_hash", None)
    identity = revision or fingerprint(Path(path))
    if isinstance(config, PretrainedConfig) and config.adapter:
        identity += f"+{fingerprint(Path(config.adapter))}"
    return Base(model, tokenizer, encoder, path, identity, autocast, revision)


def _merged(model: Any, adapter: str) -> Any:
    merged, _ = merge_adapter(model, Path(adapter), dtype=model.dtype)
    return merged


def position_limit(model: Any) -> int | None:
    """Longest text that a model can read at all, in tokens; None where positions are computed, not looked up."""
    config = model.config.get_text_config()
    if getattr(config, "rope_parameters", None) or getattr(config, "alibi", False):
        return None
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None else int(limit)
