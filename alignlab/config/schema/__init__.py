"""The typed configuration: every key, its type and its range, a file a group. Defaults live in conf/, never here."""

from alignlab.config.schema.algorithm import (
    MIN_MODPO_WEIGHT,
    AlgorithmConfig,
    EvaluateConfig,
    FrontConfig,
    ModpoConfig,
    PreferenceConfig,
)
from alignlab.config.schema.dataset import (
    BeaverTailsConfig,
    C2SynConfig,
    DatasetConfig,
    FileConfig,
    ObjectiveConfig,
    ShpConfig,
    ToyConfig,
)
from alignlab.config.schema.generation import GeneratorConfig, LocalGeneratorConfig, ServerGeneratorConfig
from alignlab.config.schema.judge import (
    AskingJudgeConfig,
    JudgeConfig,
    LocalJudgeConfig,
    OpenAIJudgeConfig,
    RulesJudgeConfig,
)
from alignlab.config.schema.model import (
    ArchitectureConfig,
    FromScratchConfig,
    ModelConfig,
    PretrainedConfig,
    PretrainingConfig,
)
from alignlab.config.schema.reward import RewardConfig
from alignlab.config.schema.run import VARIANTS, PathsConfig, RunConfig, TrackerConfig
from alignlab.config.schema.training import HardwareConfig, PeftConfig, TrainerConfig, WeightsConfig

__all__ = [
    "MIN_MODPO_WEIGHT",
    "VARIANTS",
    "AlgorithmConfig",
    "ArchitectureConfig",
    "AskingJudgeConfig",
    "BeaverTailsConfig",
    "C2SynConfig",
    "DatasetConfig",
    "EvaluateConfig",
    "FileConfig",
    "FromScratchConfig",
    "FrontConfig",
    "GeneratorConfig",
    "HardwareConfig",
    "JudgeConfig",
    "LocalGeneratorConfig",
    "LocalJudgeConfig",
    "ModelConfig",
    "ModpoConfig",
    "ObjectiveConfig",
    "OpenAIJudgeConfig",
    "PathsConfig",
    "PeftConfig",
    "PreferenceConfig",
    "PretrainedConfig",
    "PretrainingConfig",
    "RewardConfig",
    "RulesJudgeConfig",
    "RunConfig",
    "ServerGeneratorConfig",
    "ShpConfig",
    "ToyConfig",
    "TrackerConfig",
    "TrainerConfig",
    "WeightsConfig",
]
