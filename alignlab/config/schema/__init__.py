"""The typed configuration: every key, its type and its range, a file a group. Defaults live in conf/, never here."""

from alignlab.config.schema.algorithm import (
    MIN_MODPO_WEIGHT,
    AlgorithmConfig,
    EvaluateConfig,
    FrontConfig,
    ModpoConfig,
    PreferenceConfig,
    RewardModelConfig,
)
from alignlab.config.schema.course_correction import CourseCorrectionConfig
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
from alignlab.config.schema.reward import (
    REWARD_KINDS,
    BeaverConfig,
    ClassifierConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    LengthConfig,
    PythonConfig,
    RewardConfig,
    ScorerConfig,
)
from alignlab.config.schema.run import VARIANTS, PathsConfig, RunConfig, TrackerConfig
from alignlab.config.schema.training import HardwareConfig, PeftConfig, TrainerConfig, WeightsConfig

__all__ = [
    "MIN_MODPO_WEIGHT",
    "REWARD_KINDS",
    "VARIANTS",
    "AlgorithmConfig",
    "ArchitectureConfig",
    "AskingJudgeConfig",
    "BeaverConfig",
    "BeaverTailsConfig",
    "C2SynConfig",
    "ClassifierConfig",
    "CourseCorrectionConfig",
    "DatasetConfig",
    "EvaluateConfig",
    "FileConfig",
    "FromScratchConfig",
    "FrontConfig",
    "GeneratorConfig",
    "GoldConfig",
    "HardwareConfig",
    "HttpConfig",
    "ImplicitConfig",
    "JudgeConfig",
    "LengthConfig",
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
    "PythonConfig",
    "RewardConfig",
    "RewardModelConfig",
    "RulesJudgeConfig",
    "RunConfig",
    "ScorerConfig",
    "ServerGeneratorConfig",
    "ShpConfig",
    "ToyConfig",
    "TrackerConfig",
    "TrainerConfig",
    "WeightsConfig",
]
