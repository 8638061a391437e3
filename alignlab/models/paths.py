"""Checks on model and adapter folders that need no torch."""

from pathlib import Path

from alignlab.errors import ConfigError
from alignlab.models.checkpoint import ADAPTER as ADAPTER
from alignlab.models.checkpoint import check_model_folder

MODEL = "config.json"
ADAPTER_WEIGHTS = ("adapter_model.safetensors", "adapter_model.bin")


def check_folder(key: str, path: str, needed: str) -> None:
    """Refuse a local folder that is missing, lacks the file or holds no whole model; a hub id `owner/name` passes.

    Args:
        key: what the folder stands under.
        path: a folder, or a hub id.
        needed: the file that it must hold, MODEL or ADAPTER.

    Raises:
        ConfigError: naming key, path and what is missing.
    """
    folder = Path(path)
    if folder.is_dir():
        if not (folder / needed).is_file():
            raise ConfigError(f"{key}={path}: the folder holds no {needed}{_beside(folder, needed)}")
        if needed == ADAPTER and not any((folder / name).is_file() for name in ADAPTER_WEIGHTS):
            raise ConfigError(f"{key}={path}: the folder holds no {ADAPTER_WEIGHTS[0]}")
        if needed == MODEL:
            check_model_folder(key, folder)
    elif path.startswith((".", "/", "~")) or path.count("/") != 1 or Path(path).parent.is_dir():
        hint = "write $HOME for ~" if path.startswith("~") else "a hub id reads owner/name"
        raise ConfigError(f"{key}={path}: no such folder ({hint})")


def _beside(folder: Path, needed: str) -> str:
    """What a folder without the needed file holds instead, where that says what was meant."""
    if needed == MODEL and (folder / ADAPTER).is_file():
        return "; it is an adapter's: give the model that it was trained on, and it as the adapter"
    inner = sorted(file.parent for file in folder.glob(f"*/{needed}"))
    return f"; did you mean {inner[0]}?" if len(inner) == 1 else ""
