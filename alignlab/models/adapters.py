"""LoRA adapters: new ones and saved ones."""

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model, get_peft_model_state_dict, set_peft_model_state_dict
from peft.utils import load_peft_weights
from torch import Tensor
from transformers import PreTrainedModel
from transformers.utils import cached_file

from alignlab.config.schema import PeftConfig
from alignlab.errors import ConfigError, nearest
from alignlab.io.atomic import write_json
from alignlab.models.cards import AdapterCard, ClassifierCard
from alignlab.models.lora_layers import layers_of
from alignlab.models.paths import ADAPTER
from alignlab.models.paths import ADAPTER_WEIGHTS as WEIGHTS
from alignlab.models.saved_adapter import adapter_id as adapter_id
from alignlab.models.saved_adapter import checked_adapter
from alignlab.models.with_adapter import with_adapter as with_adapter


@dataclass(frozen=True)
class Adapter:
    """A saved adapter that was checked against the run's base model and template."""

    folder: Path
    id: str
    """Hash of what it does to its base."""
    card: AdapterCard | ClassifierCard | None
    """What alignlab wrote beside it; None for an adapter made elsewhere."""
    beta: float | None
    """KL strength that it was trained with, 1/nat; None where nobody says."""
    classifies: bool
    """Whether it belongs under a score head."""

    @property
    def policy_card(self) -> AdapterCard | None:
        """The card of a preference-trained adapter."""
        return self.card if isinstance(self.card, AdapterCard) else None


def adapter_for(
    key: str,
    adapter: str | Path,
    *,
    base_id: str,
    template: str | None,
    beta: float | None = None,
    needs_beta: bool = False,
    may_classify: bool = False,
) -> Adapter:
    """The only way to a saved adapter: found, checked by its files, its card and the base model at hand.

    Args:
        key: what it stands under, e.g. `algorithm.adapter`.
        adapter: its folder, or a hub id, whose files are fetched.
        base_id: Base.id of the model that it is put on.
        template: model.prompt_template of the run.
        beta: the beta that the config gives for it, if it gives one.
        needs_beta: refuse an adapter whose beta nobody says.
        may_classify: take a classifier's adapter too.

    Raises:
        ConfigError: `KEY=FOLDER: ...`, naming what does not fit.
    """
    folder = local_adapter(adapter, key=key)
    found = checked_adapter(key, folder, template=template, beta=beta, needs_beta=needs_beta, may_classify=may_classify)
    if found.card is not None and found.card.base != base_id:
        raise ConfigError(f"{key}={folder}: was trained on another base model ({found.card.base}, not {base_id})")
    return Adapter(folder, adapter_id(folder), found.card, found.beta, found.classifies)


def save_adapter(model: PeftModel, folder: Path, *, state_dict: dict[str, Tensor] | None = None) -> None:
    """Save an adapter by PEFT; equal adapters then have equal files, byte for byte.

    Args:
        model: the model with its adapter.
        folder: where to.
        state_dict: the weights, if they are not the model's own.
    """
    options = {} if state_dict is None else {"state_dict": state_dict}
    model.save_pretrained(str(folder), **options)
    sort_adapter_config(folder)


def load_weights(model: PeftModel, folder: Path) -> None:
    """Give a model's adapter the weights of a saved one of the same shape.

    Args:
        model: the model with its adapter.
        folder: the saved adapter's.

    Raises:
        ValueError: if the saved adapter has other tensors.
    """
    found = load_peft_weights(str(folder), device="cpu")
    own = {name: value.shape for name, value in get_peft_model_state_dict(model).items()}
    if own != {name: value.shape for name, value in found.items()}:
        raise ValueError(f"{folder}: its tensors are not those of the adapter that is trained")
    set_peft_model_state_dict(model, found)


def sort_adapter_config(folder: Path) -> None:
    """Write adapter_config.json with its keys and its sets sorted: PEFT saves sets in the order of their hashes."""
    settings = json.loads((folder / ADAPTER).read_text())
    for name in ("target_modules", "exclude_modules", "modules_to_save"):
        if isinstance(settings.get(name), list):
            settings[name] = sorted(settings[name])
    write_json(folder / ADAPTER, dict(sorted(settings.items())))


def lora_config(config: PeftConfig, model: Any) -> LoraConfig:
    """PEFT's form of the settings.

    Args:
        config: of the adapter.
        model: that it is put on.

    Raises:
        ConfigError: if LoRA can adapt no module of a name; PEFT leaves out what it does not find among several.
    """
    layers = list(layers_of(model))
    targets = target_modules(config)
    for target in [targets] if isinstance(targets, str) else targets:
        found = re.compile(target if isinstance(targets, str) else rf"(.*\.)?{re.escape(target)}")
        if target != "all-linear" and not any(map(found.fullmatch, layers)):
            known = {name.rpartition(".")[2] for name in layers}
            raise ConfigError(f"peft.target_modules={target}: the model has no such module; {nearest(target, known)}")
    return LoraConfig(
        r=config.r,
        lora_alpha=config.alpha,  # PEFT divides by r; a fraction is fine
        lora_dropout=config.dropout,
        target_modules=targets,
        bias="none",
        task_type="CAUSAL_LM",
    )


def target_modules(config: PeftConfig) -> str | list[str]:
    """`all-linear`, names of modules, or a regular expression; a lone name such as `q_proj` is a list of one."""
    targets = config.target_modules
    if isinstance(targets, str):
        return [targets] if re.fullmatch(r"\w+", targets) else targets
    return list(targets)


def new_adapter(model: Any, config: PeftConfig, *, seed: int) -> PeftModel:
    """The model with a fresh float32 adapter; its first output equals the base model's.

    Args:
        model: a causal language model.
        config: of the adapter.
        seed: of its initial weights.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        return get_peft_model(model, lora_config(config, model))


def detach_adapter(trained: PeftModel) -> None:
    """Restore the base model after training: no adapter, evaluation mode, no checkpointing, none of TRL's hooks."""
    base = trained.unload().eval()
    hooks = base.get_input_embeddings()._forward_hooks
    for number, hook in list(hooks.items()):  # TRL and transformers set one each, and transformers remembers one
        if hook.__qualname__.startswith(PreTrainedModel.enable_input_require_grads.__qualname__):
            del hooks[number]
    for module in base.modules():
        if getattr(module, "gradient_checkpointing", False):
            module.gradient_checkpointing = False


def local_adapter(adapter: str | Path, *, key: str = "adapter") -> Path:
    """The folder of an adapter's files; those of a hub id are fetched first, unless they were fetched before.

    Args:
        adapter: a folder, or a hub id.
        key: what it stands under, for errors.

    Raises:
        ConfigError: if neither the hub nor its cache on this machine has the adapter.
    """
    if Path(adapter).is_dir():
        return Path(adapter)
    try:
        settings = cached_file(str(adapter), ADAPTER)
        for name in WEIGHTS:
            if cached_file(str(adapter), name, _raise_exceptions_for_missing_entries=False):
                break
    except OSError as error:
        raise ConfigError(f"{key}={adapter}: {str(error).splitlines()[0]}") from None
    return Path(settings).parent
