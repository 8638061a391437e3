"""Hashes of the files that a configuration names by path. Imports no torch."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from alignlab.config.names import RANKED_FILE
from alignlab.config.objectives import NamedReward
from alignlab.config.programs import program_version
from alignlab.config.schema import DatasetConfig, RewardConfig, RunConfig
from alignlab.config.uses import value_at, why_unused
from alignlab.errors import ConfigError
from alignlab.io.hashes import file_hash
from alignlab.runs.result import recorded_fault

ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "alignlab.json")
"""What an adapter consists of."""
LARGEST_READ = 512 << 20
"""Bytes of a file that is hashed before a job starts: half a second."""


@dataclass(frozen=True)
class NamedFile:
    """A file or folder that a configuration names."""

    key: str
    path: Path
    by_content: bool
    """Whether its content counts; else the sizes and dates of its files."""
    typed: str
    """The key that it is typed under, for errors."""


def named_files(config: RunConfig, endpoints: Mapping[str, str], rewards: Mapping[str, NamedReward]) -> list[NamedFile]:
    """Every file or folder that a run reads by its path and that is there. Data and adapters count by content.

    Args:
        config: of the run.
        endpoints: objective -> its own policy's adapter.
        rewards: those that the run needs.
    """
    found = [
        ("dataset.path", _data_path(config.dataset), True),
        ("model.path", value_at(config, "model.path"), False),
        *((key, value_at(config, key), True) for key in ("model.adapter", "algorithm.adapter", "algorithm.control")),
        *(
            (f"algorithm.{key}.{index}", f"{path}{below}", True)
            for key, below in (("held_out", ""), ("merge", "/responses.jsonl"))
            for index, path in enumerate(value_at(config, f"algorithm.{key}") or ())
        ),
        *((f"algorithm.adapters.{name}", path, True) for name, path in endpoints.items()),
        ("judge.path", value_at(config, "judge.path"), False),
        *_of_rewards(
            "algorithm.rewards",
            {name: one.settings for name, one in rewards.items()},
            ("adapter", "path", "labels_path"),
        ),
    ]
    if config.algorithm.uses.data == "prompts":
        for name, scorer in config.scorers.items():
            found += _of_rewards("scorers", {name: scorer})
            found += _of_rewards(f"scorers.{name}.members", value_at(scorer, "members") or {})
    typed = {f"algorithm.rewards.{name}": one.key for name, one in rewards.items()}
    there = (NamedFile(key, Path(path), by_content, _typed(key, typed)) for key, path, by_content in found if path)
    return [file for file in there if why_unused(config, file.key) is None and file.path.exists()]


def _typed(key: str, groups: Mapping[str, str]) -> str:
    """The key that a setting is typed under.

    Args:
        key: of the setting.
        groups: a reward's group -> the one that its settings are typed under, which may be `reward`.
    """
    group, _, name = key.rpartition(".")
    return f"{groups.get(group, group)}.{name}"


def _of_rewards(
    group: str, rewards: Mapping[str, RewardConfig], fields: tuple[str, ...] = ("path", "labels_path")
) -> Iterator[tuple[str, str | None, bool]]:
    """(key, path, whether its content counts) of what rewards name.

    Args:
        group: that their settings stand in.
        rewards: by objective.
        fields: of their settings, each a path.
    """
    for name, reward in rewards.items():
        for field in fields:
            path = value_at(reward, field)
            yield f"{group}.{name}.{field}", path, field != "path" or (bool(path) and _is_small(Path(path)))


def input_fingerprints(files: Sequence[NamedFile]) -> dict[str, str]:
    """Key -> hash of the file that it names; data and adapters count by content, models by size and date."""
    return {file.key: _of(file.key, file.path, by_content=file.by_content) for file in files}


def check_recorded(files: Sequence[NamedFile]) -> None:
    """Refuse a file of an earlier run that is not what that run left; a model's weights are read when they load.

    Raises:
        ConfigError: `KEY=PATH: ...`, naming the file.
    """
    for file in files:
        fault = recorded_fault(file.path, largest=LARGEST_READ)
        if fault is not None:
            raise ConfigError(f"{file.typed}={file.path}: {fault}; run what made it again, or restore the file")


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


def _data_path(dataset: DatasetConfig) -> str | None:
    """The rows that dataset.path means; of a synthesis run's folder that is one file, its logs are no data."""
    path: str | None = value_at(dataset, "path")
    if path and dataset.kind == "c2_syn" and Path(path).is_dir():
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


def content_of(settings: RewardConfig, made_by: str | None = None) -> dict[str, str]:
    """What a reward's settings name, by key: hashes of folders, a function's version, the run that makes it.

    Args:
        settings: of the reward.
        made_by: name of the run folder, where it is made.
    """
    paths = {key: value_at(settings, key) for key in ("path", "adapter", "labels_path", "settings.path")}
    found = {
        key: _of(f".{key}", Path(path), by_content=key in ("adapter", "labels_path") or _is_small(Path(path)))
        for key, path in paths.items()
        if path and Path(path).exists()
    }
    if settings.kind == "python":
        found["function"] = program_version(str(value_at(settings, "function")))
    return found | ({} if made_by is None else {"made_by": made_by})


def quality_files(settings: DatasetConfig) -> dict[str, str]:
    """What a run measures beside its scores -> the hash of its file."""
    named = {"benign": settings.benign, "text": settings.text}
    return {name: file_hash(Path(path)) for name, path in named.items() if path is not None}
