"""LoRA adapters: new ones and saved ones."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model

from alignlab.config.schema import PeftConfig


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


@contextmanager
def adapted(model: Any, folder: Path) -> Iterator[PeftModel]:
    """The model with a saved adapter, in evaluation mode; the base model is itself again afterwards."""
    wrapped = PeftModel.from_pretrained(model, str(folder))
    try:
        yield wrapped.eval()
    finally:
        wrapped.unload()
