"""What a run is: the name of its folder is a function of everything that changes its result."""

import functools
import hashlib
import json
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from alignlab import __version__
from alignlab.config.errors import ConfigError, nearest
from alignlab.config.schema import FrontConfig, ModpoConfig, PreferenceConfig, RewardConfig, RunConfig
from alignlab.config.weights import resolve_weights

_PLACE_NOT_SUBSTANCE = {
    "trainer": (
        "save_steps",
        "logging_steps",
        "per_device_eval_batch_size",
        "max_tokens_per_forward",
        "gradient_checkpointing",
    ),
    "hardware": ("device", "processes"),
    "generator": ("batch_size",),
    "algorithm": ("rewards",),
}
"""Keys that change where or how fast a run computes, not what. Rewards enter as what they resolve to."""


@dataclass(frozen=True)
class Objectives:
    """Which objective is trained on pairs, and what each weighs."""

    trained: str
    weights: dict[str, float]

    @property
    def others(self) -> dict[str, float]:
        """The objectives that enter as rewards, with their weights; zero-weight ones have no effect."""
        return {name: w for name, w in self.weights.items() if name != self.trained and w > 0}


def objectives_of(config: RunConfig) -> Objectives:
    """The trained objective and the weights of a run.

    Raises:
        ConfigError: if the algorithm names an objective that the dataset lacks, or w does not fit.
    """
    names = list(config.dataset.objectives)
    algorithm = config.algorithm
    default = 1 if algorithm.name == "reward_model" and len(names) > 1 else 0
    trained = (algorithm.objective if isinstance(algorithm, PreferenceConfig) else None) or names[default]
    if trained not in names:
        raise ConfigError(f"algorithm.objective={trained}: no such objective; {nearest(trained, names)}")
    if isinstance(algorithm, ModpoConfig):
        weights = resolve_weights(config.w, objectives=names, trained=trained, scheme=config.weights.scheme)
    else:
        weights = {name: float(name == trained) for name in names}
    return Objectives(trained=trained, weights=weights)


def reward_of(config: RunConfig, objective: str) -> RewardConfig:
    """The reward settings of one objective: algorithm.rewards.<objective>, else the group `reward`."""
    assert isinstance(config.algorithm, ModpoConfig)
    own = config.algorithm.rewards.get(objective, RewardConfig())
    default = config.reward
    return RewardConfig(
        kind=own.kind or default.kind, adapter=own.adapter or default.adapter, beta=own.beta or default.beta
    )


def run_folder(config: RunConfig) -> PurePosixPath:
    """The folder of a run below paths.runs, e.g. `modpo/tiny/toy/w=0.3/seed=0-1a2b3c4d`."""
    parts = [config.algorithm.name, config.model.name, config.dataset.name]
    if isinstance(config.algorithm, ModpoConfig):
        parts.append(f"w={_show_weights(objectives_of(config))}")
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
    return PurePosixPath(*parts, f"seed={config.seed}-{digest}")


def identity(config: RunConfig) -> dict[str, Any]:
    """Everything that changes a run's result, as plain JSON values."""
    fields = asdict(config)
    for group, keys in _PLACE_NOT_SUBSTANCE.items():
        for key in keys:
            fields[group].pop(key, None)
    for group in ("force", "tracker", "paths", "w", "weights", "reward"):
        del fields[group]
    trainer = config.trainer
    fields["trainer"]["per_device_train_batch_size"] = (
        trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    )
    del fields["trainer"]["gradient_accumulation_steps"]
    fields["version"] = __version__.rsplit(".", 1)[0]
    fields["inputs"] = input_fingerprints(config)
    objectives = objectives_of(config)
    if isinstance(config.algorithm, PreferenceConfig):
        fields["objectives"] = {"trained": objectives.trained, "order": list(objectives.weights)}
    if isinstance(config.algorithm, ModpoConfig):
        fields["rewards"] = {name: asdict(reward_of(config, name)) for name in objectives.others}
    if not isinstance(config.algorithm, FrontConfig):
        return fields
    return {key: fields[key] for key in ("algorithm", "model", "dataset", "inputs", "version")}


def input_fingerprints(config: RunConfig) -> dict[str, str]:
    """Hashes of the files that the config names by path: data and adapters by content, models by size and date."""
    named: dict[str, tuple[str | None, bool]] = {
        "dataset.path": (getattr(config.dataset, "path", None), True),
        "model.path": (getattr(config.model, "path", None), False),
        "model.adapter": (getattr(config.model, "adapter", None), True),
        "algorithm.adapter": (getattr(config.algorithm, "adapter", None), True),
    }
    if isinstance(config.algorithm, ModpoConfig):
        for name in objectives_of(config).others:
            named[f"algorithm.rewards.{name}.adapter"] = (reward_of(config, name).adapter, True)
    found = {key: (Path(path), content) for key, (path, content) in named.items() if path and Path(path).exists()}
    return {key: fingerprint(path, content=content) for key, (path, content) in found.items()}


def fingerprint(path: Path, *, content: bool = True) -> str:
    """Hash of a file, or of a folder's files by name; of their contents, or of their sizes and dates."""
    digest = hashlib.sha256()
    files = [path] if path.is_file() else sorted(file for file in path.rglob("*") if file.is_file())
    for file in files:
        stat = file.stat()
        digest.update(file.name.encode())
        if content:
            digest.update(_content(file, stat.st_size, stat.st_mtime_ns))
        else:
            digest.update(f"{stat.st_size} {stat.st_mtime_ns}".encode())
    return digest.hexdigest()[:16]


@functools.lru_cache(maxsize=4096)
def _content(file: Path, size: int, mtime_ns: int) -> bytes:
    """Hash of a file's bytes; a sweep reads each file once, and a changed file again."""
    with file.open("rb") as stream:
        return hashlib.file_digest(stream, "sha256").digest()


def _show_weights(objectives: Objectives) -> str:
    trained = objectives.weights[objectives.trained]
    if len(objectives.weights) <= 2 and abs(sum(objectives.weights.values()) - 1) < 1e-9:
        return f"{trained:.10g}"
    return "_".join(f"{value:.10g}" for value in objectives.weights.values())
