"""Everything about a run that can be wrong and can be seen without loading a model. Imports no torch."""

import importlib.util
import os
import sys
from itertools import islice
from pathlib import Path

from alignlab.checks.rewards import check_rewards
from alignlab.config.batches import share_batch
from alignlab.config.identity import Objectives, objectives_of, reward_of, text_limit
from alignlab.config.names import REQUEST_JOBS
from alignlab.config.schema import (
    MIN_MODPO_WEIGHT,
    AuditConfig,
    CourseCorrectionConfig,
    EvaluateConfig,
    FrontConfig,
    ImplicitConfig,
    LocalJudgeConfig,
    MergeConfig,
    ModpoConfig,
    OpenAIJudgeConfig,
    PreferenceConfig,
    PretrainedConfig,
    RunConfig,
    ServerGeneratorConfig,
    SftConfig,
    SynthesisConfig,
    ToyConfig,
)
from alignlab.data.files import data_files, read_rows
from alignlab.data.requests import check_requests
from alignlab.data.sources import check_source, files_of
from alignlab.data.worlds import toy
from alignlab.errors import ConfigError, require, require_key, require_one_of
from alignlab.models.paths import check_folder
from alignlab.models.saved_adapter import adapter_settings, checked_adapter
from alignlab.runs.folder import finished_result

NUM_ROWS_LOOKED_AT = 500
"""Rows of a synthesised set whose words are looked at."""

_GPU_NODES = ("nvidia*", "nvhost*", "kfd", "dxg")
"""Device files of NVIDIA's, Jetson's, AMD's and WSL's drivers."""


def check_device(config: RunConfig) -> None:
    """Refuses cuda on a Linux machine without any GPU driver; only for jobs that run on this machine.

    Raises:
        ConfigError: naming the group to choose from.
    """
    devices = Path("/dev")
    asked = config.hardware.device == "cuda" and not isinstance(config.algorithm, FrontConfig)
    if asked and sys.platform == "linux" and not any(any(devices.glob(name)) for name in _GPU_NODES):
        raise ConfigError("hardware.device=cuda: this machine has no GPU; use hardware=cpu")


def check_key(config: RunConfig) -> None:
    """Refuses a judge or a generator whose key is not in the environment; only for jobs that run on this machine.

    Raises:
        ConfigError: naming the variable.
    """
    judge = config.judge
    if config.algorithm.name in REQUEST_JOBS and isinstance(judge, OpenAIJudgeConfig) and not judge.dry_run:
        require_key("judge", judge.api_key_env)
    if config.algorithm.name in REQUEST_JOBS and isinstance(config.generator, ServerGeneratorConfig):
        require_key("generator", config.generator.api_key_env)


def check_place(folder: Path) -> None:
    """Refuses a run folder that cannot be made.

    Raises:
        ConfigError: naming the file or the read-only folder in the way.
    """
    there = next(place for place in (folder.absolute(), *folder.absolute().parents) if place.exists())
    if not there.is_dir() or not os.access(there, os.W_OK):
        what = "is read-only" if there.is_dir() else "is a file, not a folder"
        raise ConfigError(f"{folder}: cannot be made; {there} {what} (see paths.runs and hydra.run.dir)")


def check(config: RunConfig) -> None:
    """Raises ConfigError for the first thing that cannot work."""
    objectives = objectives_of(config)
    share_batch(config.trainer, config.hardware.processes)
    if config.hardware.fsdp:
        _check_shareable(config)
    _check_data(config, objectives)
    if isinstance(config.dataset, ToyConfig):
        for name, objective in config.dataset.objectives.items():
            require_one_of(f"dataset.objectives.{name}.gold", objective.gold or "null", toy.GOLD)
    if isinstance(config.model, PretrainedConfig):
        check_folder("model.path", str(config.model.path), "config.json")
        if config.model.adapter:
            check_folder("model.adapter", config.model.adapter, "adapter_config.json")
            if Path(config.model.adapter).is_dir():
                adapter_settings("model.adapter", Path(config.model.adapter))
        if config.model.quantization is not None and importlib.util.find_spec("bitsandbytes") is None:
            raise ConfigError("model.quantization=nf4: needs bitsandbytes; pip install 'alignlab[nf4]'")
    if config.model.kind == "tiny" and not isinstance(config.dataset, ToyConfig) and not _in_toy_words(config):
        raise ConfigError("model=tiny: knows the toy's words only; use dataset=toy, or model=scratch for other data")
    check_rewards(config, objectives)
    if config.algorithm.name in REQUEST_JOBS and isinstance(config.judge, LocalJudgeConfig):
        check_folder("judge.path", str(config.judge.path), "config.json")
    samples_here = isinstance(config.algorithm, PreferenceConfig | EvaluateConfig)
    scored = all(objective.gold for objective in config.dataset.objectives.values())
    scored = scored or (isinstance(config.algorithm, EvaluateConfig) and bool(config.algorithm.rewards))
    if samples_here and scored and isinstance(config.generator, ServerGeneratorConfig):
        raise ConfigError(
            f"generator=server: algorithm={config.algorithm.name} samples the policy in its own process; "
            "use generator=transformers"
        )
    if isinstance(config.algorithm, ModpoConfig):
        _check_trained_weight(config, objectives)
    adapter = getattr(config.algorithm, "adapter", None)
    if adapter:
        _check_adapter(config, adapter)
    if isinstance(config.algorithm, AuditConfig) and adapter and not objectives.weights[objectives.trained]:
        raise ConfigError(
            f"w={config.w}: the weight of {objectives.trained} must be > 0 with algorithm.adapter: "
            "MODPO's loss divides by it"
        )
    if config.algorithm.name in REQUEST_JOBS and isinstance(config.generator, ServerGeneratorConfig) and adapter:
        _check_served_adapter(config.generator, adapter)
    if isinstance(config.algorithm, CourseCorrectionConfig):
        _check_course_correction(config.algorithm)
        if config.algorithm.profile == "paper" and config.model.prompt_template is not None:
            raise ConfigError(
                "algorithm.profile=paper: needs the tokenizer's own chat template, which the reference code renders, "
                "and model.prompt_template is a text; use algorithm.profile=words"
            )
    if isinstance(config.algorithm, SynthesisConfig):
        _check_synthesis(config.algorithm)
    if isinstance(config.algorithm, FrontConfig):
        for folder in config.algorithm.runs:
            if not Path(folder).is_dir():
                raise ConfigError(f"algorithm.runs={folder}: no such folder")


def _check_shareable(config: RunConfig) -> None:
    """Processes that share weights out put each layer together at the same time, so they must keep in step."""
    tokens = config.trainer.max_tokens_per_forward
    rule = "must be null with hardware.fsdp=true, whose processes take equally many forwards"
    require(tokens is None, "trainer.max_tokens_per_forward", tokens, rule)
    sets = config.trainer.sets_per_step
    require(sets is None, "trainer.sets_per_step", sets, rule)
    quantization = getattr(config.model, "quantization", None)
    rule = "must be null with hardware.fsdp=true: 4-bit weights are not shared out"
    require(quantization is None, "model.quantization", quantization, rule)


def _check_served_adapter(generator: ServerGeneratorConfig, adapter: str) -> None:
    """A server does not load algorithm.adapter: it must hold the adapter under a name of its own."""
    if generator.adapter_name is None:
        raise ConfigError(
            f"algorithm.adapter={adapter}: generator=server samples what the server holds; serve the adapter and give "
            "its name there as generator.adapter_name, or use generator=prefilled"
        )


def _check_course_correction(algorithm: CourseCorrectionConfig) -> None:
    for name in ("control", "labels"):
        path = getattr(algorithm, name)
        if path is not None and not Path(path).is_file():
            raise ConfigError(f"algorithm.{name}={path}: no such file")
    for folder in algorithm.compare:
        if not (Path(folder) / "corr.json").is_file():
            raise ConfigError(f"algorithm.compare={folder}: holds no corr.json of a finished run")


def _check_synthesis(algorithm: SynthesisConfig) -> None:
    if algorithm.control is not None and not Path(algorithm.control).is_file():
        raise ConfigError(f"algorithm.control={algorithm.control}: no such file")
    for path in algorithm.held_out:
        data_files(path, key="algorithm.held_out")
    for folder in algorithm.merge:
        if finished_result(Path(folder)) is None:
            raise ConfigError(f"algorithm.merge={folder}: holds no finished run")


def _in_toy_words(config: RunConfig) -> bool:
    """Whether a synthesised set is of the toy, so that `tiny`, which is its student, can learn from it."""
    path = getattr(config.dataset, "path", None)
    if config.dataset.kind != "c2_syn" or path is None:
        return False
    rows = (row for file in files_of(config.dataset) for _, row in islice(read_rows(file.path), NUM_ROWS_LOOKED_AT))
    texts = (text for row in rows for text in (row.get("prompt"), *(row.get("responses") or ())))
    return all(isinstance(text, str) and set(text.split()) <= set(toy.VOCABULARY) for text in texts)


def _check_data(config: RunConfig, objectives: Objectives) -> None:
    """Every row that the job will read, or draw requests from."""
    if config.algorithm.only_collects or isinstance(config.algorithm, MergeConfig):
        return
    if config.algorithm.name in REQUEST_JOBS:
        check_requests(config.dataset)
    else:
        by_pairs = isinstance(config.algorithm, PreferenceConfig | AuditConfig | SftConfig)
        check_source(config.dataset, max_length=text_limit(config), trained=objectives.trained if by_pairs else None)


def _check_adapter(config: RunConfig, adapter: str) -> None:
    """The adapter that an algorithm is given; of one on the hub nothing is known yet."""
    check_folder("algorithm.adapter", adapter, "adapter_config.json")
    if Path(adapter).is_dir():
        template, merges = config.model.prompt_template, isinstance(config.algorithm, MergeConfig)
        checked_adapter("algorithm.adapter", Path(adapter), template=template, may_classify=merges)


def _check_trained_weight(config: RunConfig, objectives: Objectives) -> None:
    """The loss divides by the trained weight; at 0 the policy is the one behind the other reward."""
    assert isinstance(config.algorithm, ModpoConfig)
    trained, weight = objectives.trained, objectives.weights[objectives.trained]
    if 0 < weight < MIN_MODPO_WEIGHT:
        raise ConfigError(
            f"w={weight:g}: the weight of {trained} must be 0 or at least {MIN_MODPO_WEIGHT}; MODPO's loss divides by "
            "it, and below that few pairs still carry gradient"
        )
    if weight > 0:
        return
    if len(objectives.others) != 1:
        raise ConfigError(f"w={config.w}: {trained} weighs 0; train another objective (algorithm.objective=...)")
    (other,) = objectives.others
    reward = reward_of(config, other)
    beta = config.algorithm.beta
    fits = isinstance(reward, ImplicitConfig) and (reward.beta or beta) == beta and not reward.normalise
    if not fits or objectives.weights[other] != 1:
        raise ConfigError(
            f"w=0: is the policy behind the reward of {other} without training, so that reward must be implicit, "
            f"of weight 1, and of the same beta as algorithm.beta={beta:g}"
        )
