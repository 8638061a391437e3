"""Everything that a training needs besides its model, rows and loss, in one typed value. Imports no torch."""

from dataclasses import asdict, dataclass, replace
from typing import Any

from alignlab.config.schema import (
    ArchitectureConfig,
    FromScratchConfig,
    HardwareConfig,
    ModelConfig,
    PeftConfig,
    PretrainedConfig,
    PretrainingConfig,
    TrainerConfig,
)

TRACKERS = {"wandb": "wandb", "wandb_offline": "wandb", "trackio": "trackio", "tensorboard": "tensorboard"}
"""tracker.kind that needs a library -> its name, which is the extra's too."""


@dataclass(frozen=True)
class TrackerSettings:
    """Where metrics go besides the run folder, and what they are filed under."""

    kind: str
    """auto, local, wandb, wandb_offline, trackio or tensorboard; see conf/tracker."""
    project: str
    entity: str | None
    tags: list[str]
    group: str
    name: str
    config: dict[str, Any]
    """The run's configuration, which wandb shows beside its curves."""
    adapter_mb: float = 0.0
    """Largest adapter that wandb keeps as an artifact, in MB."""


@dataclass(frozen=True)
class TrainingRecipe:
    """How an adapter is trained. JSON carries it to torchrun's workers."""

    trainer: TrainerConfig
    peft: PeftConfig
    hardware: HardwareConfig
    seed: int
    """Of adapter initialisation and row order."""
    tracker: TrackerSettings
    model: ModelConfig
    """How the base was loaded, for workers that load it again."""
    start: str | None = None
    """Folder of the adapter whose weights training starts from; None for a new one."""

    @property
    def one_process(self) -> "TrainingRecipe":
        """The same recipe for what only one process trains."""
        return replace(self, hardware=self.hardware.on_one_process())

    def to_json(self) -> dict[str, Any]:
        """JSON's form; `from_json` reads it."""
        return asdict(self)

    @classmethod
    def from_json(cls, values: dict[str, Any]) -> "TrainingRecipe":
        """The recipe that `to_json` wrote."""
        return cls(
            trainer=TrainerConfig(**values["trainer"]),
            peft=PeftConfig(**values["peft"]),
            hardware=HardwareConfig(**values["hardware"]),
            seed=values["seed"],
            tracker=TrackerSettings(**values["tracker"]),
            model=_model(values["model"]),
            start=values["start"],
        )


def _model(values: dict[str, Any]) -> ModelConfig:
    if values["kind"] == "hf":
        return PretrainedConfig(**values)
    nested = {
        "architecture": ArchitectureConfig(**values["architecture"]),
        "pretraining": PretrainingConfig(**values["pretraining"]),
    }
    return FromScratchConfig(**values | nested)
