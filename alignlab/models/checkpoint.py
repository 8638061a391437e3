"""Weights files, checked by their headers and their config.json before a model loads. Imports no torch."""

import json
import re
import struct
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from alignlab.errors import ConfigError

ADAPTER = "adapter_config.json"
SINGLE, INDEX = "model.safetensors", "model.safetensors.index.json"
PICKLED, PICKLED_INDEX = "pytorch_model.bin", "pytorch_model.bin.index.json"
LARGEST_HEADER = 100 << 20
"""Bytes of a safetensors header; the library's own limit."""
LARGEST_JSON = 64 << 20
_LFS = b"version https://git-lfs"
_FLOATS = ("F64", "F32", "F16", "BF16")
"""Types of weights that load as they are."""
_SIZES = {"F64": 64, "I64": 64, "U64": 64, "F32": 32, "I32": 32, "U32": 32, "F16": 16, "BF16": 16, "I16": 16, "U16": 16}
"""Bits of one number; types that are not named here are not measured."""


def read_json(file: Path) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        ConfigError: naming the file, if it cannot be read, is too large, or holds something else.
    """
    try:
        if not file.is_file() or file.stat().st_size > LARGEST_JSON:
            raise ConfigError(f"{file}: must be a file of at most {LARGEST_JSON >> 20} MiB")
        found = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise ConfigError(f"{file}: not JSON: {str(error) or type(error).__name__:.200}") from None
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: must be a JSON object")
    return found


def check_weights_file(file: Path) -> None:
    """Refuse a weights file that is missing, empty, or a pointer to where the weights lie.

    Raises:
        ConfigError: naming the file.
    """
    if not file.is_file():
        raise ConfigError(f"{file}: no such file, or no ordinary one; copy the weights there")
    with file.open("rb") as stream:
        start = stream.read(64)
    if not start:
        raise ConfigError(f"{file}: is empty; download or save the weights again")
    if start.startswith(_LFS):
        raise ConfigError(f"{file}: is a Git LFS pointer, not the weights; run `git lfs pull` in its folder")


def tensor_shapes(file: Path, *, plain: bool = False) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in a safetensors file, from its header.

    Args:
        file: the weights.
        plain: refuse weights in integers or 8-bit floats: without what scales them they would load as other numbers.

    Raises:
        ConfigError: naming the file, if it is missing, empty, a Git LFS pointer, truncated, or no safetensors file.
    """
    check_weights_file(file)
    size = file.stat().st_size
    broken = ConfigError(f"{file}: is no whole safetensors file; download or save it again")
    with file.open("rb") as stream:
        start = stream.read(8)
        length = struct.unpack("<Q", start)[0] if len(start) == 8 else 0
        if not 2 <= length <= min(LARGEST_HEADER, size - 8):
            raise broken
        header = stream.read(length)
    try:
        found = json.loads(header)
        shapes = {name: tuple(map(int, entry["shape"])) for name, entry in found.items() if name != "__metadata__"}
        end = max((int(entry["data_offsets"][1]) for name, entry in found.items() if name != "__metadata__"), default=0)
        whole = all(_measured(entry) for name, entry in found.items() if name != "__metadata__")
        packed = {name: str(found[name]["dtype"]) for name in shapes if found[name]["dtype"] not in _FLOATS}
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError):
        raise broken from None
    if not whole:
        raise broken
    if 8 + length + end != size:
        what = "truncated" if 8 + length + end > size else "longer than its header says"
        raise ConfigError(f"{file}: is {what} ({size:,} of {8 + length + end:,} bytes); download or save it again")
    for name, kind in packed.items() if plain else ():
        if name.endswith(".weight"):
            rule = "whose numbers mean something else without their scales; give the weights unquantized"
            raise ConfigError(f"{file}: the tensor {name} is of type {kind}, {rule}")
    return shapes


def _measured(entry: dict[str, Any]) -> bool:
    """Whether a tensor takes as many bytes as its shape and type need."""
    bits = _SIZES.get(entry["dtype"])
    count = 1
    for length in entry["shape"]:
        count *= int(length)
    return bits is None or (entry["data_offsets"][1] - entry["data_offsets"][0]) * 8 == count * bits


def weights_of(folder: Path, *, plain: bool = False) -> dict[str, tuple[int, ...]] | None:
    """Name and shape of every tensor of a model's folder; None where only pickled files hold the weights.

    Args:
        folder: the model's.
        plain: refuse weights in integers or 8-bit floats.

    Raises:
        ConfigError: naming the file that is missing or damaged.
    """
    if (folder / INDEX).is_file() and (folder / SINGLE).is_file():
        raise ConfigError(f"{folder}: holds {SINGLE} and the shards of {INDEX}; delete the one that is not the model")
    if (folder / INDEX).is_file():
        placed = read_json(folder / INDEX).get("weight_map")
        if not isinstance(placed, dict):
            raise ConfigError(f"{folder / INDEX}: holds no weight_map")
        found: dict[str, tuple[int, ...]] = {}
        for name in sorted({str(file) for file in placed.values()}):
            if Path(name).name != name:
                raise ConfigError(f"{folder / INDEX}: names {name!r}, which must be a file of the same folder")
            found |= tensor_shapes(folder / name, plain=plain)
        absent = sorted(set(placed) - set(found))
        if absent:
            raise ConfigError(
                f"{folder / str(placed[absent[0]])}: lacks the tensor {absent[0]} that {INDEX} places there"
            )
        return found
    if (folder / SINGLE).is_file():
        return tensor_shapes(folder / SINGLE, plain=plain)
    for name in (PICKLED, PICKLED_INDEX):
        if (folder / name).is_file():
            check_weights_file(folder / name)
            return None
    raise ConfigError(f"{folder}: holds no weights ({SINGLE} or {INDEX})")


UNQUANTISED = "name the same model in full precision as model.path"
"""What to do where an adapter is to be merged into quantised weights."""


def check_model_folder(key: str, folder: Path) -> None:
    """Refuse a local model whose config.json or weights would not load as they say.

    Args:
        key: what the model stands under, e.g. `model.path`.
        folder: the model's folder; a path that is no folder is a hub id and passes.

    Raises:
        ConfigError: naming key, file and remedy.
    """
    if not folder.is_dir():
        return
    settings = read_json(folder / "config.json")
    check_no_code(f"{key}={folder}", settings)
    if (folder / ADAPTER).is_file():  # transformers would put it on the model, and say nothing
        remedy = f"move {ADAPTER} and its weights to another folder, and give that as the adapter if it is wanted"
        raise ConfigError(f"{key}={folder}: holds a model and an adapter; {remedy}")
    shapes = weights_of(folder, plain=not settings.get("quantization_config"))
    if shapes is not None:
        _check_names(f"{key}={folder}", settings, shapes)


def stored_quantization(folder: Path) -> str | None:
    """The method by which a local model's weights are stored quantised; None where they are not, or for a hub id."""
    found = read_json(folder / "config.json").get("quantization_config") if folder.is_dir() else None
    return str(found.get("quant_method") or "of an unnamed method") if isinstance(found, dict) and found else None


def check_no_code(what: str, settings: dict[str, Any]) -> None:
    """Refuse a config.json or tokenizer_config.json that asks for code, or for kernels of the hub.

    Raises:
        ConfigError: naming the entry.
    """
    if settings.get("auto_map"):
        raise ConfigError(f"{what}: needs code of its own (auto_map), which is never run; use a model that needs none")
    for name, value in _entries(settings):
        if "implementation" in name and isinstance(value, str) and ("/" in value or "|" in value):
            raise ConfigError(f"{what}: {name}={value!r:.80} in its config.json names a kernel of the hub; delete it")


def _entries(value: Any, name: str = "") -> Iterable[tuple[str, Any]]:
    """Every key and value, at any depth; below a key the names are its own."""
    if isinstance(value, dict):
        for key, inner in value.items():
            yield from _entries(inner, f"{name}.{key}" if "implementation" in name else str(key))
    elif isinstance(value, list):
        for inner in value:
            yield from _entries(inner, name)
    else:
        yield name, value


def _check_names(what: str, settings: dict[str, Any], shapes: dict[str, tuple[int, ...]]) -> None:
    """What the tensors' names say without the model's class; the load report says the rest."""
    names = set(shapes)
    if not names:
        raise ConfigError(f"{what}: its weights file holds no tensor; save the model again")
    prefixes = ("module.", "_orig_mod.", "_fsdp_wrapped_module.")
    wrapped = next((prefix for prefix in prefixes if all(name.startswith(prefix) for name in names)), "")
    if wrapped:
        remedy = "save model.module (or rename the tensors)"
        raise ConfigError(f"{what}: its tensors are named {wrapped}*, as a wrapped model saves them; {remedy}")
    if any(".lora_" in name for name in names):
        raise ConfigError(f"{what}: holds an adapter's tensors, not a model's; merge it, or give it as model.adapter")
    is_causal = any("ForCausalLM" in str(kind) for kind in settings.get("architectures") or ())
    heads = ("lm_head.weight", "embed_out.weight", "output.weight", "cls.predictions.decoder.weight")
    embedded = any(name.endswith(("embed_tokens.weight", "wte.weight", "embed_in.weight")) for name in names)
    untied = is_causal and embedded and settings.get("tie_word_embeddings") is False
    if untied and not any(name.endswith(heads) for name in names):
        rule = "its config.json says tie_word_embeddings=false; set it to true if the embeddings are the head"
        raise ConfigError(f"{what}: the weights hold no lm_head.weight, and {rule}")
    layers = {int(found[1]) for name in names if (found := re.match(r"(?:model\.)?layers\.(\d+)\.", name))}
    wanted = settings.get("num_hidden_layers")
    if layers and isinstance(wanted, int) and len(layers & set(range(wanted))) < wanted:
        first = min(set(range(wanted)) - layers)
        raise ConfigError(f"{what}: the weights hold no layer {first}; config.json says num_hidden_layers={wanted}")
