"""Hashes of the files that a configuration names by path. Imports no torch."""

import hashlib
from collections.abc import Iterator
from pathlib import Path

from alignlab.config.names import RANKED_FILE
from alignlab.config.objectives import named_endpoints, reward_of, rewarded
from alignlab.config.schema import DatasetConfig, RunConfig
from alignlab.config.uses import value_at, why_unused
from alignlab.errors import ConfigError
from alignlab.io.hashes import file_hash
from alignlab.runs.result import recorded_fault

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "alignlab.json")
"""What an adapter consists of."""
LARGEST_READ = 512 << 20
"""Bytes of a file that is hashed before a job starts: half a second."""


def input_fingerprints(config: RunConfig) -> dict[str, str]:
    """Key -> hash of what it names, for the keys that the run reads and whose file is there.

    Data and adapters count by content, models by size and date.
    """
    return {key: _of(key, path, by_content=by_content) for key, path, by_content in _used(config)}


def check_recorded(config: RunConfig) -> None:
    """Refuse a file of an earlier run that is not what that run left; a model's weights are read when they load.

    Raises:
        ConfigError: `KEY=PATH: ...`, naming the file.
    """
    for key, path, _ in _used(config):
        fault = recorded_fault(path, largest=LARGEST_READ)
        if fault is not None:
            raise ConfigError(f"{key}={path}: {fault}; run what made it again, or restore the file")


def _used(config: RunConfig) -> Iterator[tuple[str, Path, bool]]:
    """(key, path, whether its content counts) of every path that is there and that the run reads."""
    for key, path, by_content in _named(config):
        if path and why_unused(config, key) is None and Path(path).exists():
            yield key, Path(path), by_content


def _named(config: RunConfig) -> Iterator[tuple[str, str | None, bool]]:
    """(key, path, whether its content counts) of every path that a configuration can name."""
    yield "dataset.path", _data_path(config), True
    yield "model.path", value_at(config, "model.path"), False
    for key in ("model.adapter", "algorithm.adapter", "algorithm.control"):
        yield key, value_at(config, key), True
    for index, path in enumerate(value_at(config, "algorithm.held_out") or ()):
        yield f"algorithm.held_out.{index}", path, True
    for index, path in enumerate(value_at(config, "algorithm.merge") or ()):
        yield f"algorithm.merge.{index}", f"{path}/responses.jsonl", True
    for name, path in named_endpoints(config).items():
        yield f"algorithm.adapters.{name}", path, True
    yield "judge.path", value_at(config, "judge.path"), False
    if config.algorithm.uses.data == "prompts":
        for name, scorer in config.scorers.items():
            members = {f"{name}.members.{own}": one for own, one in (value_at(scorer, "members") or {}).items()}
            for key, one in {name: scorer, **members}.items():
                path = value_at(one, "path")
                yield f"scorers.{key}.path", path, bool(path) and _is_small(Path(path))
                yield f"scorers.{key}.labels_path", value_at(one, "labels_path"), True
    for name in rewarded(config):
        yield f"algorithm.rewards.{name}.labels_path", value_at(reward_of(config, name), "labels_path"), True
        reward = reward_of(config, name)
        yield f"algorithm.rewards.{name}.adapter", value_at(reward, "adapter"), True
        path = value_at(reward, "path")
        yield f"algorithm.rewards.{name}.path", path, bool(path) and _is_small(Path(path))


def _is_small(folder: Path) -> bool:
    """Whether a folder holds an adapter or a probe, whose content is read in no time."""
    return any((folder / name).exists() for name in ("adapter_config.json", "probe.safetensors"))


def _of(key: str, path: Path, *, by_content: bool) -> str:
    """Of an adapter's folder only the adapter's own files are read: anything may lie beside them, or instead."""
    is_adapter = key.endswith(".adapter") or key.startswith("algorithm.adapters.")
    if not is_adapter or not path.is_dir():
        return fingerprint(path, by_content=by_content)
    return adapter_fingerprint(path)


def adapter_fingerprint(folder: Path) -> str:
    """Hashes of an adapter's own files."""
    return "".join(fingerprint(folder / name) for name in ADAPTER_FILES if (folder / name).is_file())


def _data_path(config: RunConfig) -> str | None:
    """The rows that dataset.path means; of a synthesis run's folder that is one file, its logs are no data."""
    path: str | None = value_at(config, "dataset.path")
    if path and config.dataset.kind == "c2_syn" and Path(path).is_dir():
        return str(Path(path) / RANKED_FILE)
    return path


def fingerprint(path: Path, *, by_content: bool = True) -> str:
    """Hash of a file, or of a folder's files by name; of their contents, or of their sizes and dates."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        digest.update(file.name.encode())
        if by_content:
            digest.update(bytes.fromhex(file_hash(file)))
        else:
            stat = file.stat()
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


def quality_files(settings: DatasetConfig) -> dict[str, str]:
    """What a run measures beside its scores -> the hash of its file."""
    named = {"benign": settings.benign, "text": settings.text}
    return {name: file_hash(Path(path)) for name, path in named.items() if path is not None}
