"""Load a model's weights and refuse what was not loaded as the checkpoint says."""

import pickle
from collections.abc import Callable, Collection
from pathlib import Path
from typing import Any

from huggingface_hub.errors import StrictDataclassError
from safetensors import SafetensorError
from transformers import AutoTokenizer

from alignlab.errors import ConfigError
from alignlab.models.checkpoint import check_model_folder, read_json
from alignlab.models.finite import refuse_non_finite
from alignlab.runs.progress import say

TOKENIZER_FILES = (
    "tokenizer.json",
    "tokenizer.model",
    "spiece.model",
    "sentencepiece.bpe.model",
    "vocab.json",
    "vocab.txt",
    "tekken.json",
    "tokenizer_config.json",
)
"""What a tokenizer is read from; one of them must be there."""
LOAD_ERRORS = (
    *(OSError, ValueError, RuntimeError, KeyError, IndexError, TypeError, AttributeError, AssertionError, EOFError),
    *(ImportError, SafetensorError, pickle.UnpicklingError, StrictDataclassError),
)
"""What transformers and PEFT raise for files that hold something else than they should."""
SHOWN = 3
"""Names of tensors in one line."""


def load_tokenizer(key: str, path: str, revision: str | None) -> Any:
    """The tokenizer of a folder or a hub id; its end token pads where it names no padding.

    A repository's own code is never run, and nobody is asked whether it may be.

    Args:
        key: what the model stands under, e.g. `model.path`.
        path: a folder or a hub id.
        revision: the hub's commit.

    Raises:
        ConfigError: if there is none that can be read.
    """
    folder = Path(path)
    if folder.is_dir() and not any((folder / name).is_file() for name in TOKENIZER_FILES):
        remedy = "save it there with tokenizer.save_pretrained, or copy tokenizer.json and tokenizer_config.json"
        raise ConfigError(f"{key}={path}: the folder holds no tokenizer; {remedy}")
    if (folder / "config.json").is_file():
        read_json(folder / "config.json")  # whose faults would be taken for the tokenizer's
    try:
        tokenizer = AutoTokenizer.from_pretrained(path, revision=revision, trust_remote_code=False)
    except LOAD_ERRORS as error:
        why = str(error).strip().splitlines()[0][:200] if str(error).strip() else type(error).__name__
        raise ConfigError(f"{key}={path}: its tokenizer cannot be loaded: {why}") from None
    if tokenizer.pad_token is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def load_weights(
    key: str,
    load: Callable[..., Any],
    path: str,
    *,
    new_heads: Collection[str] = (),
    read_apart: Collection[str] = (),
    **options: Any,
) -> Any:
    """A model in which every weight comes from its checkpoint, but for a head that is said to be new.

    Args:
        key: what the model stands under, e.g. `model.path`.
        load: `from_pretrained` of a transformers class.
        path: a folder or a hub id.
        new_heads: modules that may start from random weights, by name.
        read_apart: tensors of the checkpoint that the caller reads itself, by the start of their names.
        **options: further arguments of `load`.

    Raises:
        ConfigError: naming the file or the tensors that are missing, of another shape, or not finite.
    """
    check_model_folder(key, Path(path))
    what = f"{key}={path}"
    try:
        model, report = load(
            path, output_loading_info=True, ignore_mismatched_sizes=True, trust_remote_code=False, **options
        )
    except pickle.UnpicklingError:
        rule = "are pickled with more than tensors, which is never run; save the model as safetensors"
        raise ConfigError(f"{what}: its weights {rule}") from None
    except LOAD_ERRORS as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ConfigError(f"{what}: does not load: {reason:.300}") from None
    if getattr(model, "peft_config", None):  # of a hub id: a folder is refused before
        raise ConfigError(f"{what}: holds a model and an adapter, of which only the model is wanted; copy that apart")
    missing = sorted(name for name in report["missing_keys"] if name.split(".")[0] not in new_heads)
    mismatched = sorted(str(entry[0]) for entry in report["mismatched_keys"])
    if missing:
        rule = "such weights would be random; save the model again with all of them"
        raise ConfigError(f"{what}: the checkpoint lacks {_shown(missing)}; {rule}")
    if mismatched:
        rule = "have another shape than config.json says; save the model again"
        raise ConfigError(f"{what}: the tensors {_shown(mismatched)} {rule}")
    made = sorted(set(report["missing_keys"]))
    if made:
        say(f"{what}: new weights, made at random: {_shown(made)}")
    unexpected = sorted(name for name in report["unexpected_keys"] if not name.startswith(tuple(read_apart)))
    if unexpected:
        say(f"{what}: the checkpoint holds tensors that the model has no use for: {_shown(unexpected)}")
    refuse_non_finite(what, {name: tensor for name, tensor in model.named_parameters() if name not in made})
    return model


def _shown(names: list[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return ", ".join(names[:SHOWN]) + more
