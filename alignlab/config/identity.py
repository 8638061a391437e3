"""What a run is: its folder is named by every setting that the run uses and that changes its result."""

import hashlib
import json
import os
import re
from dataclasses import asdict, dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from alignlab import __version__
from alignlab.config.conditions import makes_pairs
from alignlab.config.fingerprints import NamedFile, adapter_fingerprint, input_fingerprints, named_files
from alignlab.config.names import first_scorer
from alignlab.config.objectives import NamedReward, Objectives, named_endpoints, objectives_of, rewards_of
from alignlab.config.own_pairs import pairs_settings
from alignlab.config.programs import program_version
from alignlab.config.schema import JoinedConfig, PromptsConfig, RewardConfig, RunConfig
from alignlab.config.schema.dataset import SPLIT_VERSION
from alignlab.config.uses import NOT_IN_REWARD_ID, changes_result, leaves, value_at, why_unused

_RESOLVED = ("w", "weights", "reward", "algorithm.rewards", "algorithm.adapters", "algorithm.objective", "dataset.use")
"""Keys that enter an identity as what they resolve to: objectives, their weights and rewards."""
_RESOLVED_BELOW = tuple(f"{key}." for key in _RESOLVED)
_RUN_NAME = re.compile(r"(seed=\d+-)?[0-9a-f]{8}")
"""Last part of a run's folder, as `run_folder` makes it."""
_BATCH = ("trainer.per_device_train_batch_size", "trainer.gradient_accumulation_steps")
"""Enter as their product, however it is cut into forwards."""


@dataclass(frozen=True)
class Resolved:
    """Objectives, rewards, files and earlier runs of a configuration; plan and run folder follow from them."""

    config: RunConfig
    objectives: Objectives
    endpoints: dict[str, str]
    """Objective -> its own policy's adapter, of those that algorithm.adapters names and w weighs."""
    rewards: dict[str, NamedReward]
    """Those that the run needs, by objective."""
    files: list[NamedFile]
    """That the configuration names and the run reads."""
    inputs: dict[str, str]
    """Their fingerprints."""
    previous: "Resolved | None"
    """The run of one round less, whose policy answers for this run's pairs and is trained on; None for one round."""
    pairs_run: "Resolved | None"
    """The run that makes this run's pairs; None for one whose data hold some."""

    @property
    def folder(self) -> PurePosixPath:
        """Below paths.runs, e.g. `modpo/tiny/toy/w=0.3/seed=0-1a2b3c4d`, without what is not used."""
        config = self.config
        parts = [config.algorithm.name]
        named = [group for group in ("model", "dataset") if why_unused(config, f"{group}.name") is None]
        parts += [vars(config)[group].name for group in named]
        if config.algorithm.uses.weighs:
            parts.append(f"w={_shown(self.objectives)}")
        digest = hashlib.sha256(json.dumps(identity(self), sort_keys=True).encode()).hexdigest()[:8]
        seed = f"seed={config.seed}-" if why_unused(config, "seed") is None else ""
        return PurePosixPath(*parts, f"{seed}{digest}")


def resolve(config: RunConfig) -> Resolved:
    """Work out what a configuration names, once for its plan and its folder.

    Raises:
        ConfigError: if objectives, weights or rewards do not fit the data.
    """
    objectives = objectives_of(config)
    endpoints = named_endpoints(value_at(config, "algorithm.adapters"), objectives)
    rewards = rewards_of(config, objectives)
    files = named_files(config, endpoints, rewards)
    previous = _previous_round(config)
    pairs_run = _own_pairs_run(config, previous)
    return Resolved(config, objectives, endpoints, rewards, files, input_fingerprints(files), previous, pairs_run)


def run_folder(config: RunConfig) -> PurePosixPath:
    """The folder of a run below paths.runs."""
    return resolve(config).folder


def identity(run: Resolved) -> dict[str, Any]:
    """Everything that a run uses and that changes its result, as plain JSON values by dotted key."""
    config, objectives, inputs = run.config, run.objectives, run.inputs
    uses = config.algorithm.uses
    if uses.trains and run.pairs_run is None:
        config = replace(config, scorers={})  # what a policy is does not depend on how its samples are scored
    values = dict(leaves(asdict(config)))
    if "algorithm.adapter" in inputs:
        del values["algorithm.adapter"]  # an adapter counts by its content, wherever it lies
    used = {key: value for key, value in values.items() if why_unused(config, key) is None}
    fields = {key: value for key, value in used.items() if not key.startswith(_RESOLVED_BELOW) and changes_result(key)}
    fields = {key: value for key, value in fields.items() if key not in (*_RESOLVED, *_BATCH)}
    if _BATCH[0] in used:
        fields["batch"] = values[_BATCH[0]] * values[_BATCH[1]]
    if "algorithm.objective" in used or uses.weighs:
        fields["objectives"] = [objectives.trained, list(objectives.weights)]
    if not uses.weighs and why_unused(config, "w") is None:
        fields["weights"] = objectives.weights
    if config.dataset.kind != "toy" and why_unused(config, "dataset.test_share") is None:
        fields["split_version"] = SPLIT_VERSION
    if uses.data == "prompts" or uses.picks_by_scorers:
        fields["scorers"] = {name: _identity_of(scorer) for name, scorer in config.scorers.items()}
    if fields.get("algorithm.sources"):
        fields["algorithm.sources"] = [source_identity(path, config.paths.runs) for path in values["algorithm.sources"]]
    if fields.get("algorithm.rounds") == 1:
        del fields["algorithm.rounds"]  # a run of one round is the run that it was before there were several
    if run.pairs_run is not None:  # whose folder stands for how they were sampled and scored
        fields = {key: value for key, value in fields.items() if not key.startswith("generator.")}
        fields["own_pairs"] = str(run.pairs_run.folder)
    fields["rewards"] = {name: _identity_of(reward.settings) for name, reward in run.rewards.items()}
    if "endpoints" in uses.rewards:  # a folder counts by its content
        named = run.endpoints.items()
        fields["endpoints"] = {name: path for name, path in named if f"algorithm.adapters.{name}" not in inputs}
    return {**fields, "inputs": inputs, "version": __version__.rsplit(".", 1)[0]}


def _previous_round(config: RunConfig) -> Resolved | None:
    """The run of one round less; None for a first round."""
    rounds = value_at(config, "algorithm.rounds") or 1
    if rounds == 1 or why_unused(config, "algorithm.rounds") is not None:
        return None
    fewer: dict[str, Any] = {"rounds": rounds - 1}
    return resolve(replace(config, algorithm=replace(config.algorithm, **fewer), force=False))


def _own_pairs_run(config: RunConfig, previous: Resolved | None) -> Resolved | None:
    """The run that makes a run's pairs: answers of the previous round's policy, or of the model itself.

    It has the same model, prompts, generator and scorers but for held-out ones. None for a run that makes no pairs.
    """
    if not isinstance(config.dataset, PromptsConfig) or not makes_pairs(config.algorithm.uses, config.dataset):
        return None
    pairs = config.dataset.pairs
    source = None if previous is None else Path(config.paths.runs) / previous.folder / "adapter"
    return resolve(
        replace(
            config,
            algorithm=pairs_settings(pairs, source),
            generator=replace(config.generator, samples=pairs.samples),
            scorers={name: one for name, one in config.scorers.items() if first_scorer(name) == name},
            force=False,
        )
    )


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
