"""LoRA adapters: new ones and saved ones."""

import hashlib
import json
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model
from transformers import PreTrainedModel
from transformers.utils import cached_file

from alignlab.config.fingerprints import fingerprint
from alignlab.config.schema import PeftConfig
from alignlab.errors import ConfigError
from alignlab.models.adapted import adapted as adapted
from alignlab.models.paths import ADAPTER_WEIGHTS as WEIGHTS

SAYS_NOTHING = (
    "base_model_name_or_path",
    "revision",
    "inference_mode",
    "peft_version",
    "lora_dropout",
    "task_type",
    "auto_mapping",
    "parent_library",
)
"""Settings of a saved adapter that move with machines and libraries and leave its scores alone."""


def lora_config(config: PeftConfig) -> LoraConfig:
    """PEFT's form of the settings."""
    targets = config.target_modules
    return LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # PEFT divides by r; a fraction is fine
        lora_dropout=config.dropout,
        target_modules=targets if isinstance(targets, str) else list(targets),
        bias="none",
        task_type="CAUSAL_LM",
    )


def new_adapter(model: Any, config: PeftConfig, *, seed: int) -> PeftModel:
    """The model with a fresh float32 adapter; its first output equals the base model's."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, lora_config(config))


def take_off(trained: PeftModel) -> None:
    """Takes the adapter off after training. The base model is then as it was loaded: a sweep's next run starts from it.

    Trainers leave it in training mode, recomputing its activations, with hooks on its embeddings.
    """
    base = trained.unload().eval()
    hooks = base.get_input_embeddings()._forward_hooks
    for number, hook in list(hooks.items()):  # TRL and transformers set one each, and transformers remembers one
        if hook.__qualname__.startswith(PreTrainedModel.enable_input_require_grads.__qualname__):
            del hooks[number]
    for module in base.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.gradient_checkpointing = False


def local_adapter(adapter: str | Path) -> Path:
    """The folder of an adapter's files; those of a hub id are fetched first, unless they were fetched before.

    Raises:
        ConfigError: if neither the hub nor its cache on this machine has the adapter.
    """
    if Path(adapter).is_dir():
        return Path(adapter)
    try:
        settings = cached_file(str(adapter), "adapter_config.json")
        for name in WEIGHTS:
            if cached_file(str(adapter), name, _raise_exceptions_for_missing_entries=False):
                break
    except OSError as error:
        raise ConfigError(f"adapter {adapter}: {str(error).splitlines()[0]}") from None
    return Path(settings).parent


def adapter_id(folder: Path) -> str:
    """Hash of what an adapter does to its base: the weights, and the settings that scale and place them.

    Raises:
        FileNotFoundError: if the folder holds no weights.
    """
    weights = [folder / name for name in WEIGHTS if (folder / name).is_file()]
    if not weights:
        raise FileNotFoundError(f"{folder}: holds none of {', '.join(WEIGHTS)}")
    settings = json.loads((folder / "adapter_config.json").read_text())
    told = {
        key: sorted(value) if key.endswith("modules") and isinstance(value, list) else value  # PEFT saves a set
        for key, value in settings.items()
        if key not in SAYS_NOTHING
    }
    text = json.dumps(told, sort_keys=True) + "".join(fingerprint(file) for file in weights)
    return hashlib.sha256(text.encode()).hexdigest()[:16]
