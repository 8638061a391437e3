"""What a run is: the name of its folder is a function of everything that changes its result."""

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from alignlab import __version__
from alignlab.config.names import RANKED_FILE, REQUEST_JOBS
from alignlab.config.programs import program_version
from alignlab.config.schema import (
    BALANCED,
    AuditConfig,
    MergeConfig,
    ModpoConfig,
    PreferenceConfig,
    PythonConfig,
    RewardConfig,
    RewardModelConfig,
    RunConfig,
    SftConfig,
)
from alignlab.config.schema.dataset import NO_RESPONSES, SPLIT_VERSION
from alignlab.config.weights import resolve_weights
from alignlab.errors import ConfigError, nearest

_PLACE_NOT_SUBSTANCE = {
    "trainer": (
        "save_steps",
        "logging_steps",
        "per_device_eval_batch_size",
        "max_tokens_per_forward",
        "gradient_checkpointing",
    ),
    "hardware": ("device", "processes", "fsdp"),
    "generator": ("batch_size", "api_key_env", "workers", "timeout_s", "deadline_s", "backoff_s"),
    "dataset": ("use", "on_bad_row", "max_bad_share", "overlap"),
    "algorithm": ("rewards", "check_rewards", "objective"),
    "judge": (
        "api_key_env",
        "workers",
        "timeout_s",
        "deadline_s",
        "backoff_s",
        "on_no_answer",
        "dry_run",
        "max_usd",
        "usd_per_million_input_tokens",
        "usd_per_million_output_tokens",
        "batch_size",
    ),
}
"""Keys that change where or how fast a run computes, not what. Rewards and objective enter as what they
resolve to. The objectives hold what dataset.use chose, and a run that is done left out the same rows under any rule."""
_PLACE_OF_A_REWARD = ("api_key_env", "batch_size", "workers", "timeout_s", "deadline_s", "backoff_s")


@dataclass(frozen=True)
class Objectives:
    """Which objective is trained on pairs, and what each weighs."""

    trained: str
    weights: dict[str, float]

    @property
    def others(self) -> dict[str, float]:
        """The objectives that enter as rewards, with their weights; zero-weight ones have no effect."""
        return {name: w for name, w in self.weights.items() if name != self.trained and w > 0}

    @property
    def plain(self) -> float | list[float]:
        """As short as it says all: the trained objective's weight where there are two that sum to 1, else all."""
        if len(self.weights) <= 2 and abs(sum(self.weights.values()) - 1) < 1e-9:
            return self.weights[self.trained]
        return list(self.weights.values())


def objectives_of(config: RunConfig) -> Objectives:
    """The trained objective and the weights of a run.

    Raises:
        ConfigError: if the algorithm names an objective that the dataset lacks or has no labels of, or w does not fit.
    """
    names = list(config.dataset.objectives)
    algorithm = config.algorithm
    labelled = [name for name in names if config.dataset.objectives[name].label is not None]
    if config.dataset.kind == NO_RESPONSES:
        rule = (
            f"holds prompts and no responses, of which algorithm={algorithm.name} needs pairs; choose pairs or scored"
        )
        raise ConfigError(f"dataset={config.dataset.name}: {rule}")
    if not labelled:
        raise ConfigError(f"dataset.objectives: none of {', '.join(names)} has a label: there is nothing to train on")
    default = 1 if algorithm.name == "reward_model" and len(labelled) > 1 else 0
    trained = getattr(algorithm, "objective", None) or labelled[default]
    if trained not in names:
        raise ConfigError(f"algorithm.objective={trained}: no such objective; {nearest(trained, names)}")
    if trained not in labelled:
        reason = f"dataset={config.dataset.name} has no labels of it, so it can be a reward only"
        raise ConfigError(f"algorithm.objective={trained}: {reason}; {nearest(trained, labelled)}")
    if isinstance(algorithm, BALANCED):
        weights = resolve_weights(config.w, objectives=names, trained=trained, scheme=config.weights.scheme)
    else:
        weights = {name: float(name == trained) for name in names}
    return Objectives(trained=trained, weights=weights)


def text_limit(config: RunConfig) -> int | None:
    """Longest prompt plus response of a run, in tokens; an audit has its own, None where it reads whole texts."""
    algorithm = config.algorithm
    return algorithm.max_length if isinstance(algorithm, AuditConfig) else config.trainer.max_length


def reward_of(config: RunConfig, objective: str) -> RewardConfig:
    """The reward settings of one objective: algorithm.rewards.<objective>, else the group `reward`."""
    rewards: dict[str, RewardConfig] = getattr(config.algorithm, "rewards", {})
    return rewards.get(objective, config.reward)


def rewarded(config: RunConfig) -> list[str]:
    """The objectives whose rewards a run needs: MODPO's others; elsewhere those that algorithm.rewards names.

    An audit needs both.
    """
    others = list(objectives_of(config).others) if isinstance(config.algorithm, BALANCED) else []
    named = [] if isinstance(config.algorithm, ModpoConfig) else list(getattr(config.algorithm, "rewards", {}))
    return list(dict.fromkeys([*others, *named]))


def run_folder(config: RunConfig) -> PurePosixPath:
    """The folder of a run below paths.runs, e.g. `modpo/tiny/toy/w=0.3/seed=0-1a2b3c4d`."""
    parts = [config.algorithm.name, config.model.name, config.dataset.name]
    if isinstance(config.algorithm, BALANCED):
        parts.append(f"w={_show_weights(objectives_of(config))}")
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
    return PurePosixPath(*parts, f"seed={config.seed}-{digest}")


def identity(config: RunConfig) -> dict[str, Any]:
    """Everything that changes a run's result, as plain JSON values."""
    fields = asdict(config)
    for group, keys in _PLACE_NOT_SUBSTANCE.items():
        for key in keys:
            fields[group].pop(key, None)
    if config.dataset.kind != "toy":
        fields["dataset"]["split_version"] = SPLIT_VERSION
    if config.algorithm.name not in REQUEST_JOBS:
        for key in ("requests", "k"):
            fields["dataset"].pop(key, None)
    for group in ("force", "tracker", "paths", "w", "weights", "reward"):
        del fields[group]
    if config.algorithm.name not in REQUEST_JOBS:
        del fields["judge"]
    trainer = config.trainer
    fields["trainer"]["per_device_train_batch_size"] = (
        trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    )
    del fields["trainer"]["gradient_accumulation_steps"]
    fields["version"] = __version__.rsplit(".", 1)[0]
    fields["inputs"] = input_fingerprints(config)
    objectives = objectives_of(config)
    if isinstance(config.algorithm, PreferenceConfig | AuditConfig | SftConfig):
        fields["objectives"] = {"trained": objectives.trained, "order": list(objectives.weights)}
    fields["rewards"] = {name: _substance(reward_of(config, name)) for name in rewarded(config)}
    if isinstance(config.algorithm, RewardModelConfig):
        _drop_idle_keys(fields, config.algorithm)
    if config.algorithm.only_collects:
        return {key: fields[key] for key in ("algorithm", "model", "dataset", "inputs", "version")}
    if isinstance(config.algorithm, MergeConfig):
        return {key: fields[key] for key in ("algorithm", "model", "inputs", "version")}
    return fields


def _substance(reward: RewardConfig) -> dict[str, Any]:
    kept = {key: value for key, value in asdict(reward).items() if key not in _PLACE_OF_A_REWARD}
    if isinstance(reward, PythonConfig):
        kept["version"] = program_version(str(reward.function))
    return kept


def _drop_idle_keys(fields: dict[str, Any], algorithm: RewardModelConfig) -> None:
    """What a classifier's training never reads."""
    if algorithm.kind == "classifier":
        for key in ("beta", "loss_type", "label_smoothing"):
            del fields["algorithm"][key]
        del fields["generator"]
    if algorithm.full:
        del fields["peft"]


ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", "adapter_model.bin", "alignlab.json")
"""What an adapter consists of."""


def input_fingerprints(config: RunConfig) -> dict[str, str]:
    """Hashes of the files that the config names by path: data and adapters by content, models by size and date."""
    named: dict[str, tuple[str | None, bool]] = {
        "dataset.path": (_data_path(config), True),
        "model.path": (getattr(config.model, "path", None), False),
        "model.adapter": (getattr(config.model, "adapter", None), True),
        "algorithm.adapter": (getattr(config.algorithm, "adapter", None), True),
        **{f"algorithm.held_out.{n}": (path, True) for n, path in enumerate(getattr(config.algorithm, "held_out", []))},
        **{f"algorithm.merge.{n}": (f"{path}/responses.jsonl", True) for n, path in enumerate(_shares(config))},
        "algorithm.control": (getattr(config.algorithm, "control", None), True),
    }
    if config.algorithm.name in REQUEST_JOBS:
        named["judge.path"] = (getattr(config.judge, "path", None), False)
    for name in rewarded(config):
        reward = reward_of(config, name)
        named[f"algorithm.rewards.{name}.adapter"] = (getattr(reward, "adapter", None), True)
        path = getattr(reward, "path", None)
        is_adapter = bool(path) and (Path(str(path)) / "adapter_config.json").exists()
        named[f"algorithm.rewards.{name}.path"] = (path, is_adapter)
    found = {key: (Path(path), content) for key, (path, content) in named.items() if path and Path(path).exists()}
    return {key: _fingerprint_of(key, path, content=content) for key, (path, content) in found.items()}


def _fingerprint_of(key: str, path: Path, *, content: bool) -> str:
    """Of an adapter's folder only the adapter's own files are read: anything may lie beside them, or instead."""
    if not key.endswith(".adapter") or not path.is_dir():
        return fingerprint(path, content=content)
    return "".join(fingerprint(path / name) for name in ADAPTER_FILES if (path / name).is_file())


def _shares(config: RunConfig) -> list[str]:
    shares: list[str] = getattr(config.algorithm, "merge", [])
    return shares


def _data_path(config: RunConfig) -> str | None:
    """The rows that dataset.path means; of a synthesis run's folder that is one file, its logs are no data."""
    path: str | None = getattr(config.dataset, "path", None)
    if path and config.dataset.kind == "c2_syn" and Path(path).is_dir():
        return str(Path(path) / RANKED_FILE)
    return path


def fingerprint(path: Path, *, content: bool = True) -> str:
    """Hash of a file, or of a folder's files by name; of their contents, or of their sizes and dates."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        stat = file.stat()
        digest.update(file.name.encode())
        if content:
            digest.update(_content(file, stat.st_size, stat.st_ctime_ns))  # a copied file may bring its old mtime
        else:
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _content(file: Path, size: int, ctime_ns: int) -> bytes:
    """Hash of a file's bytes; a sweep reads each file once, and a changed file again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _show_weights(objectives: Objectives) -> str:
    plain = objectives.plain
    return "_".join(f"{value:.10g}" for value in (plain if isinstance(plain, list) else [plain]))
