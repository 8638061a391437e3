"""Loads a base model with its tokenizer and says what exactly was loaded."""

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import PeftModel
from transformers import AutoModelForCausalLM, AutoTokenizer
from transformers.utils import cached_file

from alignlab.config.errors import ConfigError
from alignlab.config.identity import fingerprint
from alignlab.config.schema import ModelConfig, PretrainedConfig
from alignlab.models.adapters import adapter_id, local_adapter
from alignlab.models.prompts import PromptEncoder


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


def load_base(config: ModelConfig, *, folder: Path | None, device: str, autocast: bool = False) -> Base:
    """The base model in evaluation mode, without gradients.

    Args:
        config: the model's settings.
        folder: where a from-scratch reference lies; None for a pretrained model.
        device: cpu or cuda.
        autocast: compute in bfloat16, whatever the weights' type.
    """
    revision = None
    if isinstance(config, PretrainedConfig):
        path, dtype, attention = str(config.path), getattr(torch, config.dtype), config.attn_implementation
        revision = commit_of(path, config.revision)
    else:
        path, dtype, attention = str(folder), torch.float32, "sdpa"
    tokenizer = AutoTokenizer.from_pretrained(path, revision=revision)
    model = AutoModelForCausalLM.from_pretrained(path, revision=revision, dtype=dtype, attn_implementation=attention)
    identity = revision or fingerprint(Path(path))
    if isinstance(config, PretrainedConfig) and config.adapter:
        adapter = local_adapter(config.adapter)
        model = PeftModel.from_pretrained(model, str(adapter)).merge_and_unload()
        identity += f"+{adapter_id(adapter)}"
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    model = model.to(device).eval().requires_grad_(False)
    return Base(model, tokenizer, PromptEncoder(tokenizer, config.prompt_template), path, identity, autocast, revision)


def commit_of(path: str, revision: str | None) -> str | None:
    """The commit that a hub id stands at, which says what its files hold; None for a folder on this machine.

    Raises:
        ConfigError: if neither the hub nor its cache on this machine can tell.
    """
    if Path(path).is_dir():
        return None
    try:
        commit = Path(cached_file(path, "config.json", revision=revision)).parent.name
    except OSError as error:
        raise ConfigError(f"model.path={path}: {str(error).splitlines()[0]}") from None
    if not re.fullmatch("[0-9a-f]{40}", commit):
        raise ConfigError(f"model.path={path}: its files lie under {commit}, which is no commit; copy them to a folder")
    return commit
