"""The parts of a plan that a job hands on: where rows, base model and rewards come from. Imports no torch."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.fingerprints import content_of
from alignlab.config.names import HELD_OUT
from alignlab.config.schema import (
    DatasetConfig,
    FileConfig,
    FromScratchConfig,
    HardwareConfig,
    LocalGeneratorConfig,
    ModelConfig,
    PairsConfig,
    RewardConfig,
    RewardModelConfig,
    ToyConfig,
    TrainerConfig,
)
from alignlab.errors import ConfigError

if TYPE_CHECKING:
    from alignlab.config.plan import Plan


@dataclass(frozen=True)
class RowSource:
    """Where preferences come from."""

    settings: DatasetConfig
    toy: ToyConfig | None
    """The settings where the rows are sampled in the embedded world, else None."""
    max_length: int | None
    """Longest prompt plus response in tokens; None reads whole texts."""
    identity: str
    """Hash of the file, or the hub id; empty for the toy."""
    cache: Path
    made_by: "Plan[PairsConfig] | None" = None
    """The run that makes the rows, of the model's own answers; None where they are read or sampled."""

    @property
    def file(self) -> FileConfig:
        """The settings where the rows are read from files or the hub.

        Raises:
            ConfigError: where they are not.
        """
        if not isinstance(self.settings, FileConfig):
            raise ConfigError(f"dataset={self.settings.name}: has no file of rows; choose a data set that is read")
        return self.settings


@dataclass(frozen=True)
class ScratchModel:
    """A small model that alignlab trains from random weights."""

    settings: FromScratchConfig
    rows: RowSource | None
    """What it learns from; None for the toy's grammar."""
    trainer: TrainerConfig
    hardware: HardwareConfig
    cache: Path


@dataclass(frozen=True)
class ModelSource:
    """A base model: which, where it computes, and how it is made if it starts from random weights."""

    settings: ModelConfig
    scratch: ScratchModel | None
    dtype: str
    """Of the weights."""
    device: str
    bf16: bool
    files: tuple[str | None, ...]
    """Fingerprints of model.path and model.adapter, so that a changed folder is loaded again."""


@dataclass(frozen=True)
class Sampling:
    """How the run's own model is sampled in this process."""

    generator: LocalGeneratorConfig
    seed: int


@dataclass(frozen=True)
class RewardSource:
    """The reward of one objective: its settings, and the run that makes it where none is named."""

    objective: str
    settings: RewardConfig
    gold: str | None
    """Name of the objective's true reward, where the data knows it."""
    labelled: bool
    """Whether the data ranks responses by the objective, so that a reward can be trained for it."""
    dataset: str
    algorithm: str
    made_by: "Plan[RewardModelConfig] | None"
    beta: float
    """Of an implicit reward whose adapter has no card, in 1/nat."""
    group: str
    """The group of settings that it stands in: `algorithm.rewards`, `algorithm.adapters` or `scorers`."""
    named_by: str
    """What its settings are typed under: `GROUP.OBJECTIVE`, or `reward` where the group of that name holds them."""
    held_out: bool
    """Whether it is a second scorer of its objective, which nothing is trained on."""
    members: "dict[str, RewardSource]"
    """Of a joined scorer; empty for any other reward."""
    member: str | None
    """Its name among the members of a joined scorer, if it is one."""
    prompt_template: str | None
    max_length: int
    batch_size: int
    device: str

    def content(self) -> dict[str, str]:
        """What its settings name and its members', by key: other hashes mean another reward under the same settings."""
        found = content_of(self.settings, None if self.made_by is None else self.made_by.folder.name)
        members = ((name, one.content()) for name, one in self.members.items())
        return found | {f"members.{name}.{key}": value for name, own in members for key, value in own.items()}

    @property
    def key(self) -> str:
        """What its settings are typed under."""
        return self.named_by + self._below

    @property
    def own_key(self) -> str:
        """What settings of this objective alone stand under; they come before those of the group `reward`."""
        return f"{self.group}.{self.objective}" + self._below

    @property
    def _below(self) -> str:
        joined = "" if self.member is None else f".members.{self.member}"
        return (f".{HELD_OUT}" if self.held_out else "") + joined
