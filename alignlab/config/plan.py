"""The plan of a run: its configuration, resolved once into the parts that its job hands on. Imports no torch.

A job takes the plan; everything that it calls takes one of the parts below.
"""

import dataclasses
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Generic, TypeVar

from alignlab.config.conditions import OF_PAIRS, makes_pairs
from alignlab.config.fingerprints import NamedFile
from alignlab.config.identity import Resolved, resolve
from alignlab.config.labels import labelled_rows
from alignlab.config.names import MADE_REWARDS, first_scorer
from alignlab.config.objectives import NamedReward, Objectives, reward_of
from alignlab.config.own_pairs import scored_rows
from alignlab.config.parts import ModelSource, RewardSource, RowSource, Sampling, ScratchModel
from alignlab.config.recipe import TrackerSettings, TrainingRecipe
from alignlab.config.schema import (
    AlgorithmConfig,
    AuditConfig,
    DatasetConfig,
    EvaluateConfig,
    FileConfig,
    FromScratchConfig,
    GeneratorConfig,
    HardwareConfig,
    JoinedConfig,
    JudgeConfig,
    LocalGeneratorConfig,
    ModelConfig,
    ModpoConfig,
    ProbeConfig,
    RewardConfig,
    RewardModelConfig,
    RunConfig,
    ToyConfig,
    TrainerConfig,
)
from alignlab.config.uses import value_at, why_unused
from alignlab.errors import ConfigError

TOY_TOKENS = 32
"""The toy grammar's longest response and its end, with a margin for what is not well-formed."""

ANSWER_TOKENS = 128
"""Longest answer to a prompt of data that hold no responses."""

A_co = TypeVar("A_co", bound=AlgorithmConfig, covariant=True)


@dataclass(frozen=True)
class Plan(Generic[A_co]):
    """One run, resolved.

    `settings` are the algorithm's own. `rewards` are those that the run needs, by objective. `folder` is where the run
    belongs unless hydra.run.dir says otherwise. `record` is every setting as plain values, for config.json.
    """

    algorithm: A_co
    objectives: Objectives
    seed: int
    model: ModelSource
    rows: RowSource
    rewards: dict[str, RewardSource]
    target: dict[str, float]
    """Objective -> the mean score that must at least be reached."""
    scorers: dict[str, RewardSource]
    """What scores the policy's samples, by objective; a held-out scorer of one stands as OBJECTIVE_held_out."""
    recipe: TrainingRecipe
    generator: GeneratorConfig
    judge: JudgeConfig
    cache: Path
    runs: Path
    folder: Path
    force: bool
    files: list[NamedFile]
    """That the configuration names and the run reads."""
    inputs: dict[str, str]
    """Their fingerprints."""
    record: dict[str, Any]
    config: RunConfig
    """The configuration that it was made of, from which plans of related runs are made; nothing else reads it."""
    dataset: str | None
    """Name of the data that the run reads, None for one that reads none."""
    samples: bool
    """Whether the run's model is sampled."""
    judges: bool
    """Whether a judge is asked."""
    same_as: "Plan[RewardModelConfig] | None"
    """The reward_model run that trains the very same policy, where no other objective weighs anything."""
    previous: "Plan[Any] | None"
    """The run of one round less, whose adapter answers for this run's pairs and is trained on; None for one round."""
    collects: bool
    """Whether the run looks at other runs, whatever they are by now, so that it is never done before."""

    def with_algorithm(self, **changes: Any) -> "Plan[A_co]":
        """The plan of the same run with other settings of its algorithm."""
        algorithm = dataclasses.replace(self.algorithm, **changes)
        return plan_of(dataclasses.replace(self.config, algorithm=algorithm))

    def evaluation(self, adapter: Path | None, *, samples: int | None = None) -> "Plan[EvaluateConfig]":
        """The run that samples and scores a policy with this run's scorers; of the reference without an adapter.

        Args:
            adapter: the policy's.
            samples: a prompt, in place of generator.samples.
        """
        name = None if adapter is None else str(adapter)
        algorithm = EvaluateConfig(name="evaluate", adapter=name, beta=self.config.dataset.beta)
        generator = self.config.generator
        if samples is not None:
            generator = dataclasses.replace(generator, samples=samples)
        return plan_of(dataclasses.replace(self.config, algorithm=algorithm, generator=generator, force=False))

    def reads(self, key: str) -> bool:
        """Whether a setting changes anything in the run."""
        return why_unused(self.config, key) is None

    def sampling(self) -> Sampling:
        """How the run's own model is sampled.

        Raises:
            ConfigError: as `local_generator`.
        """
        return Sampling(self.local_generator, self.seed)

    @property
    def local_generator(self) -> LocalGeneratorConfig:
        """How the run's own model is sampled in this process.

        Raises:
            ConfigError: if the configuration names a server instead.
        """
        if not isinstance(self.generator, LocalGeneratorConfig):
            what = f"algorithm={self.algorithm.name} samples the policy in its own process"
            raise ConfigError(f"generator={self.generator.kind}: {what}; use generator=transformers")
        return self.generator


MakeRun = Callable[[Plan[Any]], Path]
"""Runs a prerequisite in its folder unless that has been done; returns the folder."""


def plan_of(config: RunConfig) -> Plan[Any]:
    """The plan of a run.

    Raises:
        ConfigError: if objectives, weights or rewards do not fit the data.
    """
    return _plan(resolve(config))


def _plan(run: Resolved) -> Plan[Any]:
    config, inputs, algorithm = run.config, run.inputs, run.config.algorithm
    uses, runs, cache, record = algorithm.uses, Path(config.paths.runs), Path(config.paths.cache), asdict(config)
    previous = None if run.previous is None else _plan(run.previous)
    pairs = None if run.pairs_run is None else _plan(run.pairs_run)
    rows = RowSource(
        settings=config.dataset if pairs is None else scored_rows(config.dataset, config.scorers, pairs.folder),
        toy=config.dataset if isinstance(config.dataset, ToyConfig) else None,
        max_length=algorithm.max_length if isinstance(algorithm, AuditConfig) else config.trainer.max_length,
        identity=inputs.get("dataset.path") or str(value_at(config, "dataset.hub") or ""),
        cache=cache,
        made_by=pairs,
    )
    group = "algorithm.adapters" if "endpoints" in uses.rewards else "algorithm.rewards"
    scorers = config.scorers if why_unused(config, "scorers") is None else {}
    return Plan(
        algorithm=algorithm,
        objectives=run.objectives,
        seed=config.seed,
        model=_model_source(config.model, rows, config.trainer, config.hardware, inputs),
        rows=rows,
        rewards={name: _reward_source(config, name, one, group) for name, one in run.rewards.items()},
        target=config.target,
        scorers={
            name: _reward_source(config, name, NamedReward(f"scorers.{first_scorer(name)}", one), "scorers")
            for name, one in scorers.items()
        },
        recipe=_recipe(config, record, start=None if previous is None else previous.folder / "adapter"),
        generator=_generator(config.generator, config.dataset),
        judge=config.judge,
        cache=cache,
        runs=runs,
        folder=runs / run.folder,
        force=config.force,
        files=run.files,
        inputs=inputs,
        record=record,
        config=config,
        dataset=config.dataset.name if why_unused(config, "dataset.name") is None else None,
        samples=uses.samples(config) is None,
        judges=uses.judges(config) is None,
        same_as=_same_as(config, run.objectives) if previous is None else None,
        previous=previous,
        collects=uses.collects(config) is None,
    )


def _recipe(config: RunConfig, record: dict[str, Any], start: Path | None) -> TrainingRecipe:
    """How an adapter is trained, without settings that the run does not read.

    Args:
        config: of the run.
        record: the same as plain values.
        start: the adapter that training starts from.
    """
    group = f"{config.algorithm.name}/{config.model.name}/{config.dataset.name}"
    name = f"w={config.w} seed={config.seed}"
    sets, tokens = (value_at(config, key) if why_unused(config, key) is None else None for key in OF_PAIRS)
    return TrainingRecipe(
        trainer=dataclasses.replace(config.trainer, sets_per_step=sets, max_tokens_per_forward=tokens),
        peft=config.peft,
        hardware=config.hardware,
        seed=config.seed,
        tracker=TrackerSettings(**asdict(config.tracker), group=group, name=name, config=record),
        model=config.model,
        start=None if start is None else str(start),
    )


def _model_source(
    model: ModelConfig, rows: RowSource, trainer: TrainerConfig, hardware: HardwareConfig, inputs: dict[str, str]
) -> ModelSource:
    scratch = None
    if isinstance(model, FromScratchConfig):
        learned = dataclasses.replace(rows, max_length=trainer.max_length)
        from_data = None if model.kind == "tiny" else learned
        scratch = ScratchModel(model, from_data, trainer, hardware.on_one_process(), rows.cache)
    files = tuple(inputs.get(name) for name in ("model.path", "model.adapter"))
    return ModelSource(model, scratch, value_at(model, "dtype") or "float32", hardware.device, hardware.bf16, files)


def _generator(generator: GeneratorConfig, dataset: DatasetConfig) -> GeneratorConfig:
    """The generator, with a length where the data hold no responses that say one."""
    limit = {"toy": TOY_TOKENS, "prompts": ANSWER_TOKENS}.get(dataset.kind)
    if generator.max_new_tokens or limit is None:
        return generator
    return dataclasses.replace(generator, max_new_tokens=limit)


def _reward_source(
    config: RunConfig, name: str, reward: NamedReward, group: str, member: str | None = None
) -> RewardSource:
    """The source of one reward, with the run that makes it.

    Args:
        config: the run that needs it.
        name: of its objective, or of a scorer's column.
        reward: its settings, and what they are typed under.
        group: that they stand in.
        member: its name among the members of a joined scorer, if it is one.
    """
    objective, settings, made_on = first_scorer(name), reward.settings, config
    own_labels = isinstance(settings, ProbeConfig) and settings.labels is not None
    if isinstance(settings, ProbeConfig) and settings.labels is not None:
        made_on = dataclasses.replace(config, dataset=_probe_labels(f"{group}.{objective}", objective, settings))
    known = config.dataset.objectives.get(objective)
    scored = group != "scorers" and makes_pairs(config.algorithm.uses, config.dataset) and objective in config.scorers
    labelled = own_labels or scored or (known is not None and known.label is not None)
    own = value_at(config, "algorithm.reward_beta") or value_at(config, "algorithm.beta") or config.dataset.beta
    beta, made_by = value_at(settings, "beta") or own, None
    named = value_at(settings, "adapter" if settings.kind == "implicit" else "path")
    makes = group == "scorers" or own_labels or config.algorithm.uses.makes_rewards
    if labelled and settings.kind in MADE_REWARDS and named is None and makes:
        # Classifiers and probes have no beta: every run that needs one shares it.
        algorithm = _reward_model(objective, settings, beta if settings.kind == "implicit" else own)
        made_by = plan_of(dataclasses.replace(made_on, algorithm=algorithm, force=False))
    members = settings.members if isinstance(settings, JoinedConfig) else {}
    return RewardSource(
        objective=objective,
        settings=settings,
        gold=None if known is None else known.gold,
        labelled=labelled,
        dataset=config.dataset.name,
        algorithm=config.algorithm.name,
        made_by=made_by,
        beta=beta,
        group=group,
        named_by=reward.key,
        held_out=name != objective,
        members={
            own: _reward_source(config, name, NamedReward(reward.key, one), "scorers", own)
            for own, one in members.items()
        },
        member=member,
        prompt_template=config.model.prompt_template,
        max_length=config.trainer.max_length,
        batch_size=config.trainer.per_device_eval_batch_size,
        device=config.hardware.device,
    )


def _probe_labels(key: str, objective: str, settings: ProbeConfig) -> FileConfig:
    """The labelled rows that a probe names.

    Args:
        key: what its settings stand under.
        objective: that they must rank by.
        settings: the probe's.

    Raises:
        ConfigError: if they do not rank by the objective.
    """
    rows = labelled_rows(f"{key}.labels", str(settings.labels), settings.labels_path, settings.labels_rows)
    ranked = [name for name, one in rows.objectives.items() if one.label is not None]
    if objective not in ranked:
        raise ConfigError(f"{key}.labels={settings.labels}: ranks by {', '.join(ranked)}, not by {objective}")
    return rows


def _reward_model(objective: str, settings: RewardConfig, beta: float) -> RewardModelConfig:
    """Settings of the reward_model run that makes an objective's reward."""
    probe = settings if isinstance(settings, ProbeConfig) else None
    return RewardModelConfig(
        name="reward_model",
        objective=objective,
        beta=beta,
        loss_type="sigmoid",
        label_smoothing=0.0,
        kind=settings.kind,
        full=False,
        layers=probe.layers if probe else [1.0],
        pooling=probe.pooling if probe else "mean",
        length_term=probe.length_term if probe else "none",
        ridge=probe.ridge if probe else None,
    )


def _same_as(config: RunConfig, objectives: Objectives) -> Plan[RewardModelConfig] | None:
    """The implicit reward that other points of a sweep read, where its policy is this very run's."""
    match config.algorithm:
        case ModpoConfig(loss_type="sigmoid", sft_weight=0, beta=beta) if objectives.trained_weight == 1:
            trained = objectives.trained
            source = _reward_source(config, trained, reward_of(config, trained), "algorithm.rewards")
            if not objectives.others and source.settings.kind == "implicit" and source.beta == beta:
                return source.made_by
    return None
