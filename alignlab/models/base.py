"""Loads a base model with its tokenizer and says what exactly was loaded."""

import gc
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from transformers import AutoModelForCausalLM, BitsAndBytesConfig
from transformers.utils import cached_file

from alignlab.config.fingerprints import fingerprint
from alignlab.config.schema import ModelConfig, PretrainedConfig
from alignlab.errors import ConfigError
from alignlab.models.adapters import adapter_for
from alignlab.models.loading import load_tokenizer, load_weights
from alignlab.models.merge import merge_adapter
from alignlab.models.prompts import PromptEncoder
from alignlab.runs.result import recorded_fault


@dataclass
class Base:
    """A frozen causal language model, the reference of every run on it."""

    model: Any
    tokenizer: Any
    encoder: PromptEncoder
    path: str
    id: str
    """What adapters are tied to: the hub's commit, or a hash of every file in the model's folder, the tokenizer's among
    them; and of an adapter that was merged into it."""
    autocast: bool = False
    """Compute in bfloat16 where training does, so that policy and reference take one numeric path."""
    revision: str | None = None

    @property
    def scorer(self) -> str:
        """What log-probabilities of given tokens depend on: the weights, and how they are computed.

        The same token ids under another tokenizer have the same log-probabilities, but a tokenizer lies with its
        weights and is fingerprinted with them, so a changed one computes anew.
        """
        attention = self.model.config._attn_implementation
        return f"{self.id}:{self.model.dtype}{'+autocast' if self.autocast else ''}:{attention}"

    @property
    def device(self) -> torch.device:
        """Where the model's weights are."""
        return next(self.model.parameters()).device  # type: ignore[no-any-return]


def load_base(
    config: ModelConfig, *, folder: Path | None, device: str, autocast: bool = False, key: str = "model.path"
) -> Base:
    """The base model in evaluation mode, without gradients.

    Args:
        config: the model's settings.
        folder: where a from-scratch reference lies; None for a pretrained model.
        device: cpu or cuda.
        autocast: compute in bfloat16, whatever the weights' type.
        key: what the model stands under, for errors.
    """
    encoder = load_encoder(config, folder=folder, key=key)
    path, revision = _place(config, folder, key)
    if isinstance(config, PretrainedConfig):
        dtype: torch.dtype = getattr(torch, config.dtype)
        options: dict[str, Any] = {"attn_implementation": config.attn_implementation}
        if config.quantization is not None:
            options |= {"quantization_config": _nf4(dtype), "device_map": {"": device}}
    else:
        dtype, options = torch.float32, {"attn_implementation": "sdpa"}
    fault = None if revision else recorded_fault(Path(path))
    if fault is not None:
        raise ConfigError(f"{key}={path}: {fault}; run what made it again, or restore the file")
    model = load_weights(key, AutoModelForCausalLM.from_pretrained, path, revision=revision, dtype=dtype, **options)
    _fit_vocabulary(f"{key}={path}", encoder.tokenizer, model.get_input_embeddings().weight.shape[0])
    if "quantization_config" in options and not getattr(model, "is_loaded_in_4bit", False):
        rule = f"the weights of {path} are quantised already, in another way; leave it null"
        raise ConfigError(f"model.quantization=nf4: {rule}")
    identity = revision or fingerprint(Path(path))
    if isinstance(config, PretrainedConfig) and config.adapter:
        template = config.prompt_template
        adapter = adapter_for("model.adapter", config.adapter, base_id=identity, template=template)
        model, _ = merge_adapter(model, adapter.folder, dtype=model.dtype, key="model.adapter")
        identity += f"+{adapter.id}"
    if "device_map" not in options:
        model = model.to(device)
    model = model.eval().requires_grad_(False)
    if isinstance(config, PretrainedConfig) and config.quantization is not None:
        identity += f"+{config.quantization}"
    return Base(model, encoder.tokenizer, encoder, path, identity, autocast, revision)


def _fit_vocabulary(what: str, tokenizer: Any, size: int) -> None:
    """Refuse a tokenizer with tokens that the model has no embeddings of; padding, which is never read, becomes EOS.

    Args:
        what: `KEY=PATH`.
        tokenizer: of the model.
        size: rows of the model's embeddings.

    Raises:
        ConfigError: naming the first such token and what to do.
    """
    beyond = sorted((number, token) for token, number in tokenizer.get_vocab().items() if number >= size)
    used = [token for _, token in beyond if token != tokenizer.pad_token]
    if used:
        raise ConfigError(
            f"{what}: its tokenizer knows {len(used)} tokens beyond the model's {size} embeddings, the first is "
            f"{used[0]!r:.40}; resize the model (resize_token_embeddings) and save it, or use its own tokenizer"
        )
    if beyond:
        tokenizer.pad_token = tokenizer.eos_token


def load_encoder(config: ModelConfig, *, folder: Path | None, key: str = "model.path") -> PromptEncoder:
    """The model's tokenizer and prompt template without the model, which a server may have.

    Args:
        config: the model's settings.
        folder: where a from-scratch reference lies; None for a pretrained model.
        key: what the model stands under, for errors.

    Raises:
        ConfigError: if there is no tokenizer, or it has no end token or no chat template that can be used.
    """
    path, revision = _place(config, folder, key)
    tokenizer = load_tokenizer(key, path, revision)
    return PromptEncoder(tokenizer, config.prompt_template, key=key)


def _place(config: ModelConfig, folder: Path | None, key: str) -> tuple[str, str | None]:
    """Path or hub id, and the hub id's commit.

    Args:
        config: the model's settings.
        folder: where a from-scratch reference lies.
        key: what the model stands under, for errors.
    """
    if isinstance(config, PretrainedConfig):
        return str(config.path), commit_of(str(config.path), config.revision, key=key)
    return str(folder), None


def _nf4(dtype: torch.dtype) -> BitsAndBytesConfig:
    """The reference code's settings, but for the precision of the products, which is the model's."""
    return BitsAndBytesConfig(
        load_in_4bit=True,
        bnb_4bit_quant_type="nf4",
        bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=dtype,
    )


def commit_of(path: str, revision: str | None, *, key: str = "model.path") -> str | None:
    """The commit that a hub id stands at, which says what its files hold; None for a folder on this machine.

    Args:
        path: a folder or a hub id.
        revision: of the hub; None for its main branch.
        key: what the model stands under, for errors.

    Raises:
        ConfigError: if neither the hub nor its cache on this machine can tell.
    """
    if Path(path).is_dir():
        return None
    try:
        commit = Path(cached_file(path, "config.json", revision=revision)).parent.name
    except OSError as error:
        raise ConfigError(f"{key}={path}: {str(error).splitlines()[0]}") from None
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise ConfigError(f"{key}={path}: its files lie under {commit}, which is no commit; copy them to a folder")
    return commit


def free_memory() -> None:
    """Gives back to the GPU what no tensor needs any more, for other processes and for larger pieces."""
    gc.collect()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def position_limit(model: Any) -> int | None:
    """Longest text that a model can read at all, in tokens; None where positions are computed, not looked up."""
    config = model.config.get_text_config()
    if getattr(config, "rope_parameters", None) or getattr(config, "alibi", False):
        return None
    limit = getattr(config, "max_position_embeddings", None)
    return None if limit is None else int(limit)
