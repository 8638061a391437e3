"""The typed configuration: every key, its type and its range, a file a group. Defaults live in conf/, never here."""

from alignlab.config.schema.algorithm import AlgorithmConfig
from alignlab.config.schema.choose import ChooseConfig
from alignlab.config.schema.conditioned import ConditionedConfig, ExportConfig
from alignlab.config.schema.course_correction import CourseCorrectionConfig
from alignlab.config.schema.dataset import (
    BeaverTailsConfig,
    C2SynConfig,
    DatasetConfig,
    FileConfig,
    ObjectiveConfig,
    PromptsConfig,
    ShpConfig,
    ToyConfig,
)
from alignlab.config.schema.decoding import BestOfNConfig, LogitMixConfig
from alignlab.config.schema.generation import GeneratorConfig, LocalGeneratorConfig, ServerGeneratorConfig
from alignlab.config.schema.judge import (
    AskingJudgeConfig,
    JudgeConfig,
    LocalJudgeConfig,
    OpenAIJudgeConfig,
    RulesJudgeConfig,
)
from alignlab.config.schema.loss_weighting import LossWeightedConfig, RacoConfig, SafeDpoConfig
from alignlab.config.schema.measuring import (
    AuditConfig,
    EvaluateConfig,
    FrontConfig,
    IndexConfig,
    MergeConfig,
    PreviewConfig,
)
from alignlab.config.schema.model import (
    ArchitectureConfig,
    FromScratchConfig,
    ModelConfig,
    PretrainedConfig,
    PretrainingConfig,
)
from alignlab.config.schema.online import GrpoConfig
from alignlab.config.schema.pairs import PairsConfig
from alignlab.config.schema.preference import (
    MIN_MODPO_WEIGHT,
    DpoConfig,
    ModpoConfig,
    PreferenceConfig,
    RebelConfig,
    RewardModelConfig,
    SftConfig,
)
from alignlab.config.schema.publish import PublishConfig
from alignlab.config.schema.reward import (
    REWARD_KINDS,
    BeaverConfig,
    ClassifierConfig,
    CostConfig,
    GoldConfig,
    HttpConfig,
    ImplicitConfig,
    JoinedConfig,
    JudgedConfig,
    LengthConfig,
    ProbeConfig,
    PythonConfig,
    RewardConfig,
    ScorerConfig,
)
from alignlab.config.schema.run import VARIANTS, PathsConfig, RunConfig, TrackerConfig
from alignlab.config.schema.soup import SoupConfig
from alignlab.config.schema.synthesis import SynthesisConfig
from alignlab.config.schema.training import HardwareConfig, PeftConfig, TrainerConfig, WeightsConfig

__all__ = [
    "MIN_MODPO_WEIGHT",
    "REWARD_KINDS",
    "VARIANTS",
    "AlgorithmConfig",
    "ArchitectureConfig",
    "AskingJudgeConfig",
    "AuditConfig",
    "BeaverConfig",
    "BeaverTailsConfig",
    "BestOfNConfig",
    "C2SynConfig",
    "ChooseConfig",
    "ClassifierConfig",
    "ConditionedConfig",
    "CostConfig",
    "CourseCorrectionConfig",
    "DatasetConfig",
    "DpoConfig",
    "EvaluateConfig",
    "ExportConfig",
    "FileConfig",
    "FromScratchConfig",
    "FrontConfig",
    "GeneratorConfig",
    "GoldConfig",
    "GrpoConfig",
    "HardwareConfig",
    "HttpConfig",
    "ImplicitConfig",
    "IndexConfig",
    "JoinedConfig",
    "JudgeConfig",
    "JudgedConfig",
    "LengthConfig",
    "LocalGeneratorConfig",
    "LocalJudgeConfig",
    "LogitMixConfig",
    "LossWeightedConfig",
    "MergeConfig",
    "ModelConfig",
    "ModpoConfig",
    "ObjectiveConfig",
    "OpenAIJudgeConfig",
    "PairsConfig",
    "PathsConfig",
    "PeftConfig",
    "PreferenceConfig",
    "PretrainedConfig",
    "PretrainingConfig",
    "PreviewConfig",
    "ProbeConfig",
    "PromptsConfig",
    "PublishConfig",
    "PythonConfig",
    "RacoConfig",
    "RebelConfig",
    "RewardConfig",
    "RewardModelConfig",
    "RulesJudgeConfig",
    "RunConfig",
    "SafeDpoConfig",
    "ScorerConfig",
    "ServerGeneratorConfig",
    "SftConfig",
    "ShpConfig",
    "SoupConfig",
    "SynthesisConfig",
    "ToyConfig",
    "TrackerConfig",
    "TrainerConfig",
    "WeightsConfig",
]
