"""Settings that a user typed and that change nothing in the runs at hand. Imports no torch."""

from collections.abc import Callable, Sequence

from alignlab.config.identity import reward_of, rewarded
from alignlab.config.names import REQUEST_JOBS
from alignlab.config.schema import (
    AuditConfig,
    ClassifierConfig,
    CourseCorrectionConfig,
    EvaluateConfig,
    FrontConfig,
    ImplicitConfig,
    MergeConfig,
    ModpoConfig,
    PreferenceConfig,
    RewardModelConfig,
    RunConfig,
    SftConfig,
    SynthesisConfig,
)
from alignlab.errors import masked


def without_effect(configs: Sequence[RunConfig], overrides: Sequence[str], *, is_sweep: bool) -> list[str]:
    """One line for each override that has no effect on any of the runs: `w=0.3: has no effect on algorithm=dpo`."""
    lines = []
    for override in overrides:
        key = override.lstrip("+~").partition("=")[0]
        reasons = [_reason(config, key) for config in configs]
        if not is_sweep and key.startswith(("hydra/launcher", "hydra.launcher", "hydra/sweeper", "hydra.sweep")):
            reasons = ["without -m"]
        if is_sweep and key == "hydra.run.dir":
            reasons = ["on a sweep; paths.runs and hydra.sweep.dir say where its folders go"]
        if reasons and all(reasons):
            lines.append(masked(f"{override.lstrip('+')}: has no effect {reasons[0]}"))
    return list(dict.fromkeys(lines))


def _reason(config: RunConfig, key: str) -> str | None:
    """Why a key changes nothing in a run, else None."""
    for prefixes, idle in _RULES:
        if any(key == prefix or key.startswith(f"{prefix}.") for prefix in prefixes):
            reason = idle(config)
            if reason:
                return reason
    return None


def _unless(*kinds: type) -> Callable[[RunConfig], str | None]:
    """No effect unless the algorithm is of one of these kinds."""
    return lambda config: None if isinstance(config.algorithm, kinds) else f"on algorithm={config.algorithm.name}"


def _on_untrained(config: RunConfig) -> str | None:
    """Nothing is trained by these: an evaluation, a front, a merge, an audit whose rewards are there."""
    algorithm = config.algorithm
    if isinstance(algorithm, EvaluateConfig | FrontConfig | MergeConfig | CourseCorrectionConfig | SynthesisConfig):
        return f"on algorithm={algorithm.name}"
    if isinstance(algorithm, AuditConfig) and not any(_is_made(config, name) for name in rewarded(config)):
        return "on algorithm=audit, which trains nothing"
    return None


def _on_one_process(config: RunConfig) -> str | None:
    """What is not preference training takes one process, which has nobody to share weights with."""
    alone = isinstance(config.algorithm, SftConfig) or _on_classifier(config)
    return f"on algorithm={config.algorithm.name}, which trains on one process" if alone else _on_untrained(config)


def _is_made(config: RunConfig, objective: str) -> bool:
    """Whether a reward_model run makes an objective's reward."""
    reward = reward_of(config, objective)
    if isinstance(reward, ImplicitConfig):
        return reward.adapter is None
    return isinstance(reward, ClassifierConfig) and reward.path is None


def _on_merge(config: RunConfig) -> str | None:
    return "on algorithm=merge, which reads no data" if isinstance(config.algorithm, MergeConfig) else None


def _on_own_limit(config: RunConfig) -> str | None:
    idle = isinstance(config.algorithm, AuditConfig) and _on_untrained(config)
    return "on algorithm=audit; algorithm.max_length limits its texts" if idle else None


def _on_unsampled(config: RunConfig) -> str | None:
    """Responses are sampled where gold rewards score them."""
    if config.algorithm.name in REQUEST_JOBS:
        return None
    if not isinstance(config.algorithm, PreferenceConfig | EvaluateConfig):
        return f"on algorithm={config.algorithm.name}"
    if isinstance(config.algorithm, RewardModelConfig) and config.algorithm.kind == "classifier":
        return "on a classifier, which writes nothing"
    scored = all(objective.gold for objective in config.dataset.objectives.values())
    scored = scored or (isinstance(config.algorithm, EvaluateConfig) and bool(config.algorithm.rewards))
    return None if scored else f"on dataset={config.dataset.name}, whose metrics need no samples"


def _on_unjudged(config: RunConfig) -> str | None:
    if isinstance(config.algorithm, SynthesisConfig) and config.algorithm.filter == "none":
        return "with algorithm.filter=none, which asks no judge"
    return None if config.algorithm.name in REQUEST_JOBS else f"on algorithm={config.algorithm.name}"


def _on_single_response(config: RunConfig) -> str | None:
    writes = isinstance(config.algorithm, SynthesisConfig)
    return "on algorithm=synthesis, which writes each response once" if writes else None


def _on_counted_steps(config: RunConfig) -> str | None:
    return f"with trainer.max_steps={config.trainer.max_steps}" if config.trainer.max_steps > 0 else None


def _on_single_objective(config: RunConfig) -> str | None:
    """Rewards of the others do not enter where only the trained objective weighs anything."""
    if isinstance(config.algorithm, ModpoConfig | AuditConfig) and not rewarded(config):
        return f"at w={config.w}, where no other objective weighs anything"
    return None


def _on_classifier(config: RunConfig) -> str | None:
    """A classifier learns Bradley-Terry scores: no beta, no choice of a loss."""
    idle = isinstance(config.algorithm, RewardModelConfig) and config.algorithm.kind == "classifier"
    return "with algorithm.kind=classifier" if idle else None


def _without_rewards(config: RunConfig) -> str | None:
    """The group is the default for the objectives that MODPO needs, and for those that an evaluation names."""
    takes = isinstance(config.algorithm, ModpoConfig) or bool(rewarded(config))
    return None if takes else f"on algorithm={config.algorithm.name}"


def _on_full_training(config: RunConfig) -> str | None:
    full = isinstance(config.algorithm, RewardModelConfig) and config.algorithm.full
    return "with algorithm.full=true" if full else None


def _on_local_data(config: RunConfig) -> str | None:
    return "with dataset.path, which is read in the hub's place" if getattr(config.dataset, "path", None) else None


def _on_strict_data(config: RunConfig) -> str | None:
    strict = getattr(config.dataset, "on_bad_row", None) == "error"
    return "with dataset.on_bad_row=error" if strict else None


def _unless_requests(config: RunConfig) -> str | None:
    return None if config.algorithm.name in REQUEST_JOBS else f"on algorithm={config.algorithm.name}"


_RULES: tuple[tuple[tuple[str, ...], Callable[[RunConfig], str | None]], ...] = (
    (("w", "weights"), _unless(ModpoConfig, AuditConfig)),
    (("reward",), _without_rewards),
    (("dataset", "trainer"), _on_merge),
    (("trainer.max_length",), _on_own_limit),
    (("reward", "algorithm.rewards", "algorithm.check_rewards"), _on_single_objective),
    (("algorithm.beta", "algorithm.loss_type", "algorithm.label_smoothing"), _on_classifier),
    (("peft",), _on_full_training),
    (("hardware.fsdp",), _on_one_process),
    (("generator.samples",), _on_single_response),
    (("generator",), _on_unsampled),
    (("judge",), _on_unjudged),
    (("trainer.num_train_epochs",), _on_counted_steps),
    (
        tuple(f"dataset.{key}" for key in ("hub", "revision", "subset", "data_dir", "train_split", "test_split")),
        _on_local_data,
    ),
    (("dataset.max_bad_share",), _on_strict_data),
    (("dataset.requests", "dataset.k"), _unless_requests),
    (
        ("peft", "trainer.learning_rate", "trainer.num_train_epochs", "trainer.max_steps", "trainer.save_steps"),
        _on_untrained,
    ),
)
"""Keys, and when they are idle."""
