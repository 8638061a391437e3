"""Context manager: attach a saved LoRA adapter, restore the base model exactly on exit."""

import dataclasses
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, PeftModel, get_peft_model_state_dict
from peft.utils import load_peft_weights
from safetensors import safe_open
from torch import Tensor, nn

from alignlab.errors import ConfigError
from alignlab.models.checkpoint import read_json
from alignlab.models.finite import refuse_non_finite
from alignlab.models.loading import LOAD_ERRORS
from alignlab.models.paths import ADAPTER as CONFIG
from alignlab.models.paths import ADAPTER_WEIGHTS as WEIGHTS
from alignlab.models.plain_lora import PLAIN_STARTS
from alignlab.models.saved_adapter import adapter_settings, check_vocabulary, match_patterns, patterns_of
from alignlab.runs.progress import say


@contextmanager
def with_adapter(model: Any, folder: Path, *, key: str = "adapter") -> Iterator[PeftModel]:
    """Attach a saved adapter, in evaluation mode; the base model is restored exactly on exit.

    Args:
        model: the base model.
        folder: the adapter's.
        key: what the adapter stands under, for errors, e.g. `algorithm.adapter`.

    Raises:
        ConfigError: if the adapter does not fit the model: layers that are missing, more or of another shape.
    """
    base = ModuleSnapshot(model, in_full=touches_base_weights(folder))
    try:
        yield load_adapter(model, folder, key=key).eval()
    finally:
        base.restore()


def load_adapter(model: Any, folder: Path, *, key: str = "adapter") -> PeftModel:
    """The model wrapped by PEFT, every tensor of the adapter loaded and finite; the model itself is changed.

    Args:
        model: the base model.
        folder: the adapter's.
        key: what the adapter stands under, for errors.

    Raises:
        ConfigError: as `with_adapter` does.
    """
    settings, what = adapter_settings(key, folder), f"{key}={folder}"
    _refuse_unknown(what, settings)
    _say_other_base(what, str(settings.get("base_model_name_or_path") or ""), model.config.name_or_path)
    names = [name for name, _ in model.named_modules()]
    own = [name for name, _ in model.named_parameters(remove_duplicate=False)]
    match_patterns(f"{what}: {CONFIG}", patterns_of(settings), names)
    check_vocabulary(what, folder, model.get_input_embeddings().weight.shape[0])
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        try:
            wrapped = PeftModel.from_pretrained(model, str(folder))
        except LOAD_ERRORS as error:
            reason = " ".join(str(error).split())
            raise _misfit(what, f": {reason:.300}") from None
    missing = [str(item.message) for item in caught if "missing adapter keys" in str(item.message)]
    if missing:  # PEFT only warns, and leaves these layers as if they had no adapter
        first = missing[0].partition("['")[2].partition("'")[0]
        raise _misfit(what, f": it lacks {first or missing[0]:.200}")
    _refuse_leftovers(wrapped, folder, what, own)
    refuse_non_finite(what, load_peft_weights(str(folder), device="cpu"))  # biases and tokens are among them
    return wrapped


@cache
def _say_other_base(what: str, trained: str, base: str) -> None:
    """Say, once, that an adapter names another base model: one of the same shape takes it without an error.

    Args:
        what: `KEY=FOLDER`.
        trained: the base model by adapter_config.json; empty where it names none.
        base: the one at hand.
    """
    if trained and Path(trained).name.casefold() != Path(base).name.casefold():
        say(f"{what}: was trained on {trained} by its {CONFIG}, and is put on {base} here")


def _refuse_unknown(what: str, settings: dict[str, Any]) -> None:
    """Refuse settings that a newer PEFT wrote and this one ignores; those that are off change nothing."""
    known = {field.name for field in dataclasses.fields(LoraConfig)}
    unknown = sorted(name for name, value in settings.items() if name not in known and value)
    if unknown:
        remedy = "upgrade PEFT, or merge the adapter by the version that saved it"
        raise ConfigError(f"{what}: {CONFIG} sets {', '.join(unknown)}, which this version of PEFT ignores; {remedy}")


def saved_keys(folder: Path) -> list[str]:
    """Names of the saved tensors; of the old .bin form none, which only torch could list."""
    file = folder / WEIGHTS[0]
    if not file.is_file():
        return []
    with safe_open(file, framework="pt") as stream:
        return list(stream.keys())


def touches_base_weights(folder: Path) -> bool:
    """Whether loading writes into the base model's own weights: saved biases and embeddings, or a PiSSA-like start."""
    keys = saved_keys(folder)
    plain = [key for key in keys if ".lora_" in key or ".modules_to_save." in key or "token_adapter" in key]
    plain_start = read_json(folder / CONFIG).get("init_lora_weights", True) in PLAIN_STARTS
    return len(plain) < len(keys) or not keys or not plain_start


def _refuse_leftovers(wrapped: PeftModel, folder: Path, what: str, own: Iterable[str]) -> None:
    """Refuse saved tensors that no module took, as of an adapter for a deeper model; PEFT says nothing of them.

    Args:
        wrapped: the model with the adapter.
        folder: the adapter's.
        what: `KEY=FOLDER`.
        own: names of the base model's own weights, which a saved tensor may replace.
    """
    if getattr(wrapped.get_base_model(), "_checkpoint_conversion_mapping", None):
        return  # PEFT renames such a model's keys while it loads
    placed = {_layer_of(key) for key in get_peft_model_state_dict(wrapped, save_embedding_layers=False)}
    placed |= {f"base_model.model.{name}" for name in own}
    left = sorted(key for key in saved_keys(folder) if _layer_of(key).replace(".base_layer.", ".") not in placed)
    if left:
        raise _misfit(what, f", which has no layer for {left[0]}")


def _misfit(what: str, why: str) -> ConfigError:
    remedy = "name the base that it was trained on, or save it again with PEFT"
    return ConfigError(f"{what}: does not fit the base model{why}; {remedy}")


def _layer_of(key: str) -> str:
    return key.partition(".lora_")[0]


class ModuleSnapshot:
    """A model's modules as they are now, to be restored.

    PEFT's own unloading leaves trained copies (modules_to_save) and loaded biases behind, and the next policy would be
    compared with a reference that nobody has.

    Args:
        model: the base model.
        in_full: copy the weights' values too.
    """

    def __init__(self, model: nn.Module, *, in_full: bool) -> None:
        self.model = model
        self.modules = dict(model.named_modules(remove_duplicate=False))
        self.weights: dict[str, Tensor] = {}
        if in_full:
            self.weights = {name: weights.detach().clone() for name, weights in model.named_parameters()}

    def restore(self) -> None:
        """Restore every module, and the values that were copied."""
        for name, module in self.modules.items():
            parent = self.modules[name.rpartition(".")[0]]
            if name and getattr(parent, name.rpartition(".")[2]) is not module:
                setattr(parent, name.rpartition(".")[2], module)
        for leftover in ("peft_config", "_hf_peft_config_loaded"):
            self.model.__dict__.pop(leftover, None)
        with torch.no_grad():
            for name, weights in self.model.named_parameters():
                if name in self.weights:
                    weights.copy_(self.weights[name])
