"""What a run is: its folder is named by every setting that the run uses and that changes its result."""

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import asdict, replace
from pathlib import Path, PurePosixPath
from typing import Any

from alignlab import __version__
from alignlab.config.conditions import makes_pairs
from alignlab.config.fingerprints import adapter_fingerprint, input_fingerprints
from alignlab.config.objectives import Objectives, named_endpoints, objectives_of, reward_of, rewarded
from alignlab.config.own_pairs import pairs_run, previous_round
from alignlab.config.programs import program_version
from alignlab.config.schema import JoinedConfig, RewardConfig, RunConfig
from alignlab.config.schema.dataset import SPLIT_VERSION
from alignlab.config.uses import NOT_IN_REWARD_ID, is_part_of_result, why_unused

_RESOLVED = ("w", "weights", "reward", "algorithm.rewards", "algorithm.adapters", "algorithm.objective", "dataset.use")
"""Keys that enter an identity as what they resolve to: objectives, their weights and rewards."""
_RUN_NAME = re.compile(r"(seed=\d+-)?[0-9a-f]{8}")
"""Last part of a run's folder, as `run_folder` makes it."""
_BATCH = ("trainer.per_device_train_batch_size", "trainer.gradient_accumulation_steps")
"""Enter as their product, however it is cut into forwards."""


def run_folder(config: RunConfig) -> PurePosixPath:
    """The folder of a run below paths.runs, e.g. `modpo/tiny/toy/w=0.3/seed=0-1a2b3c4d`, without what is not used."""
    parts = [config.algorithm.name]
    parts += [vars(config)[group].name for group in ("model", "dataset") if why_unused(config, f"{group}.name") is None]
    if config.algorithm.uses.weighs:
        parts.append(f"w={_shown(objectives_of(config))}")
    digest = hashlib.sha256(json.dumps(identity(config), sort_keys=True).encode()).hexdigest()[:8]
    seed = f"seed={config.seed}-" if why_unused(config, "seed") is None else ""
    return PurePosixPath(*parts, f"{seed}{digest}")


def identity(config: RunConfig) -> dict[str, Any]:
    """Everything that a run uses and that changes its result, as plain JSON values by dotted key."""
    if config.algorithm.uses.trains and not makes_pairs(config):
        config = replace(config, scorers={})  # what a policy is does not depend on how its samples are scored
    values, inputs = dict(_leaves(asdict(config), "")), input_fingerprints(config)
    if "algorithm.adapter" in inputs:
        del values["algorithm.adapter"]  # an adapter counts by its content, wherever it lies
    resolved = tuple(f"{key}." for key in _RESOLVED)
    fields = {
        key: value
        for key, value in values.items()
        if key not in _RESOLVED
        and key not in _BATCH
        and not key.startswith(resolved)
        and is_part_of_result(config, key)
    }
    if why_unused(config, _BATCH[0]) is None:
        fields["batch"] = values[_BATCH[0]] * values[_BATCH[1]]
    chosen = "algorithm.objective" in values and why_unused(config, "algorithm.objective") is None
    if chosen or config.algorithm.uses.weighs:
        objectives = objectives_of(config)
        fields["objectives"] = [objectives.trained, list(objectives.weights)]
    if not config.algorithm.uses.weighs and why_unused(config, "w") is None:
        fields["weights"] = objectives_of(config).weights
    if config.dataset.kind != "toy" and why_unused(config, "dataset.test_share") is None:
        fields["split_version"] = SPLIT_VERSION
    if config.algorithm.uses.data == "prompts" or config.algorithm.uses.picks_by_scorers:
        fields["scorers"] = {name: _identity_of(scorer) for name, scorer in config.scorers.items()}
    if fields.get("algorithm.sources"):
        fields["algorithm.sources"] = [source_identity(path, config.paths.runs) for path in values["algorithm.sources"]]
    if fields.get("algorithm.rounds") == 1:
        del fields["algorithm.rounds"]  # a run of one round is the run that it was before there were several
    if makes_pairs(config):  # whose folder stands for how they were sampled and scored
        fields = {key: value for key, value in fields.items() if not key.startswith("generator.")}
        fields["pairs"] = str(run_folder(own_pairs_run(config)))
    fields["rewards"] = {name: _identity_of(reward_of(config, name)) for name in rewarded(config)}
    if "endpoints" in config.algorithm.uses.rewards:
        named = named_endpoints(config).items()  # a folder counts by its content
        fields["endpoints"] = {name: path for name, path in named if f"algorithm.adapters.{name}" not in inputs}
    return {**fields, "inputs": inputs, "version": __version__.rsplit(".", 1)[0]}


def own_pairs_run(config: RunConfig) -> RunConfig:
    """The run that makes a run's pairs: answers of the previous round's policy, or of the model itself."""
    earlier = previous_round(config)
    return pairs_run(config, None if earlier is None else str(adapter_of(earlier)))


def adapter_of(config: RunConfig) -> Path:
    """Folder of the adapter that a run trains."""
    return Path(config.paths.runs) / run_folder(config) / "adapter"


def source_identity(source: str, runs: str) -> str:
    """What an adapter counts by: in a run's own folder, whose name says what made it, by this name; else by content.

    So an adapter that is still to be trained has the identity that it will have then. One on the hub counts by name.

    Args:
        source: its folder or name.
        runs: paths.runs.
    """
    below = PurePosixPath(os.path.relpath(source, runs))
    if below.name == "adapter" and _RUN_NAME.fullmatch(below.parent.name) and ".." not in below.parts:
        return str(below)
    return adapter_fingerprint(Path(source)) if Path(source).is_dir() else source


def _leaves(node: Mapping[str, Any], prefix: str) -> Iterator[tuple[str, Any]]:
    """Dotted key -> value of everything below a mapping; an empty mapping is a value."""
    for key, value in node.items():
        if isinstance(value, Mapping) and value:
            yield from _leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _identity_of(reward: RewardConfig) -> dict[str, Any]:
    kept = {key: value for key, value in asdict(reward).items() if key not in NOT_IN_REWARD_ID}
    if isinstance(reward, JoinedConfig):
        kept["members"] = {name: _identity_of(one) for name, one in reward.members.items()}
    if reward.kind == "python":
        kept["version"] = program_version(str(kept["function"]))
    return kept


def _shown(objectives: Objectives) -> str:
    plain = objectives.plain
    return "_".join(f"{value:.10g}" for value in (plain if isinstance(plain, list) else [plain]))
