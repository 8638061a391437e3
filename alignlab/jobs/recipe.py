"""The parts of a run's configuration that its training takes."""

from dataclasses import asdict

from alignlab.config.schema import RunConfig
from alignlab.runs.tracking import TrackerSettings
from alignlab.training.recipe import TrainingRecipe


def tracker_settings(config: RunConfig) -> TrackerSettings:
    """Where a run's metrics go: one wandb group a (algorithm, model, dataset)."""
    return TrackerSettings(
        kind=config.tracker.kind,
        project=config.tracker.project,
        group=f"{config.algorithm.name}/{config.model.name}/{config.dataset.name}",
        name=f"w={config.w} seed={config.seed}",
        config=asdict(config),
    )


def recipe_of(config: RunConfig) -> TrainingRecipe:
    """How a run trains."""
    return TrainingRecipe(
        trainer=config.trainer,
        peft=config.peft,
        hardware=config.hardware,
        seed=config.seed,
        tracker=tracker_settings(config),
        model=config.model,
    )
