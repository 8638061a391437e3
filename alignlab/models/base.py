"""Loads a base model with its tokenizer and says what exactly was loaded."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, BitsAndBytesConfig

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
    encoder = load_encoder(config, folder=folder)
    path = _path(config, folder)
    if isinstance(config, PretrainedConfig):
        dtype: torch.dtype = getattr(torch, config.dtype)
        options: dict[str, Any] = {"revision": config.revision, "attn_implementation": config.attn_implementation}
        if config.quantization is not None:
            options |= {"quantization_config": _nf4(dtype), "device_map": {"": device}}
    else:
        dtype, options = torch.float32, {"attn_implementation": "sdpa"}
    model = AutoModelForCausalLM.from_pretrained(path, dtype=dtype, **options)
    if isinstance(config, PretrainedConfig) and config.adapter:
        model = _merged(model, config.adapter)
    if "device_map" not in options:
        model = model.to(device)
    model = model.eval().requires_grad_(False)
    revision = getattr(model.config, "_commit_hash", None)
    identity = revision or fingerprint(Path(path))
    if isinstance(config, PretrainedConfig) and config.adapter:
        identity += f"+{fingerprint(Path(config.adapter))}"
    if isinstance(config, PretrainedConfig) and config.quantization is not None:
        identity += f"+{config.quantization}"
    return Base(model, encoder.tokenizer, encoder, path, identity, autocast, revision)


def load_encoder(config: ModelConfig, *, folder: Path | None) -> PromptEncoder:
    """The model's tokenizer and prompt template without the model, which a server may have.

    Args:
        config: the model's settings.
        folder: where a from-scratch reference lies; None for a pretrained model.
    """
    revision = config.revision if isinstance(config, PretrainedConfig) else None
    tokenizer = AutoTokenizer.from_pretrained(_path(config, folder), revision=revision)
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return PromptEncoder(tokenizer, config.prompt_template)


def _path(config: ModelConfig, folder: Path | None) -> str:
    return str(config.path if isinstance(config, PretrainedConfig) else folder)


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """The reference code's settings, but for the precision of the products, which is the model's."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


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
