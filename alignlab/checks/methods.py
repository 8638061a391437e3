"""What one method needs beside what every run does, seen without loading a model. Imports no torch."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from alignlab.checks.rewards import require_safety_labels
from alignlab.config.plan import Plan
from alignlab.config.schema import (
    BestOfNConfig,
    ConditionedConfig,
    GrpoConfig,
    LogitMixConfig,
    LossWeightedConfig,
    PreviewConfig,
    SafeDpoConfig,
    SoupConfig,
)
from alignlab.config.weights import resolve_weights
from alignlab.data.sources import check_source
from alignlab.errors import ConfigError, nearest, require
from alignlab.models.paths import check_folder
from alignlab.models.plain_lora import require_plain
from alignlab.models.saved_adapter import checked_adapter, require_beta


def _check_soup(algorithm: SoupConfig, plan: Plan[Any]) -> None:
    """Something to add up; named endpoints that fit the run and are plain LoRAs. Of one on the hub nothing is known."""
    names = list(plan.objectives.weights)
    require(bool(plan.objectives.others), "w", plan.config.w, "leaves nothing to add up: every weight is 0")
    for name, adapter in algorithm.adapters.items():
        key, folder = f"algorithm.adapters.{name}", Path(adapter)
        if name not in names:
            raise ConfigError(f"{key}: no such objective; {nearest(name, names)}")
        check_folder(key, adapter, "adapter_config.json")
        if folder.is_dir():
            found = checked_adapter(key, folder, template=plan.model.settings.prompt_template)
            require_beta(key, folder, found.policy_card, algorithm.beta)
            require_plain(key, folder, found.settings)


def _check_conditioned(algorithm: ConditionedConfig, plan: Plan[Any]) -> None:
    """Two objectives or more; points that w can name; labels of each objective where the loss takes them."""
    names = list(plan.objectives.weights)
    require(len(names) > 1, "dataset.use", names, "leaves nothing to balance: give two objectives or more")
    for w in algorithm.export_at:
        try:
            resolve_weights(w, objectives=names, trained=names[0], scheme="convex")
        except ConfigError as error:
            raise ConfigError(f"algorithm.export_at: {error}") from None
    unlabelled = [name for name in names if not plan.rewards[name].labelled]
    if algorithm.ranks_by_labels and unlabelled:
        rule = f"needs labels of every objective, and there are none of {', '.join(unlabelled)}; use squared"
        raise ConfigError(f"algorithm.loss={algorithm.loss}: {rule}")


def _check_loss_weighted(algorithm: LossWeightedConfig, plan: Plan[Any]) -> None:
    """Pairs of every objective that weighs something."""
    settings = plan.rows.settings
    require(bool(plan.objectives.others), "w", plan.config.w, "leaves nothing to train on: every weight is 0")
    for name in plan.objectives.others:
        if settings.objectives[name].label is None:
            what = f"has no labels of {name}, so there are no pairs of it; leave it out, dataset.use=[...]"
            raise ConfigError(f"dataset={settings.name}: {what}")
        if plan.rows.made_by is None:
            check_source(settings, max_length=plan.rows.max_length, trained=name)


def _check_grpo(algorithm: GrpoConfig, plan: Plan[Any]) -> None:
    _ = plan.local_generator  # refuses a server
    trainer = plan.recipe.trainer
    batch = trainer.per_device_train_batch_size * trainer.gradient_accumulation_steps
    rule = f"must divide the {batch} responses of a step (trainer.per_device_train_batch_size)"
    require(batch % algorithm.generations == 0, "algorithm.generations", algorithm.generations, rule)


def _check_safedpo(algorithm: SafeDpoConfig, plan: Plan[Any]) -> None:
    require_safety_labels("algorithm=safedpo", plan.rows)


def _check_best_of_n(algorithm: BestOfNConfig, plan: Plan[Any]) -> None:
    _require_scorers(plan)
    samples = algorithm.samples or plan.generator.samples
    rule = f"must be at most {'algorithm' if algorithm.samples else 'generator'}.samples={samples}, to choose from"
    require(algorithm.n <= samples, "algorithm.n", algorithm.n, rule)


def _check_logit_mix(algorithm: LogitMixConfig, plan: Plan[Any]) -> None:
    _require_scorers(plan)
    for source in plan.rewards.values():
        kind = source.settings.kind
        rule = f"must be implicit on algorithm=logit_mix, which mixes the policies behind the rewards; {kind} has none"
        require(kind == "implicit", f"{source.key}.kind", kind, rule)
        rule = "has no meaning on algorithm=logit_mix: a policy has no unit"
        require(not source.settings.normalise, f"{source.key}.normalise", "true", rule)
    if algorithm.level == "sequence":
        _require_plain_samples(plan, "algorithm.level=sequence")


def _check_preview(algorithm: PreviewConfig, plan: Plan[Any]) -> None:
    _require_scorers(plan)
    _require_plain_samples(plan, "algorithm=preview")


def _require_plain_samples(plan: Plan[Any], what: str) -> None:
    """Refuse settings under which samples are not drawn from the reference itself, where they are weighed as its own.

    Args:
        plan: of the run.
        what: setting that weighs them.

    Raises:
        ConfigError: naming the setting.
    """
    for name in ("temperature", "top_p"):
        rule = f"must be 1 with {what}, which weighs samples of the reference itself"
        require(getattr(plan.generator, name) == 1, f"generator.{name}", getattr(plan.generator, name), rule)


def _require_scorers(plan: Plan[Any]) -> None:
    """Refuse a policy that only its scored samples can measure where some objective has no scorer.

    Raises:
        ConfigError: naming the objective.
    """
    objectives = plan.rows.settings.objectives
    if plan.rows.toy is not None and all(objective.gold for objective in objectives.values()):
        return
    missing = next((name for name in objectives if name not in plan.scorers), None)
    if missing is not None:
        what = f"algorithm={plan.algorithm.name} needs a scorer of every objective"
        raise ConfigError(f"scorers.{missing}: {what}; scorers.{missing}.kind=..., or scorers=beaver")


METHOD_CHECKS: dict[type, Callable[[Any, Plan[Any]], None]] = {
    SoupConfig: _check_soup,
    LossWeightedConfig: _check_loss_weighted,
    SafeDpoConfig: _check_safedpo,
    GrpoConfig: _check_grpo,
    ConditionedConfig: _check_conditioned,
    BestOfNConfig: _check_best_of_n,
    LogitMixConfig: _check_logit_mix,
    PreviewConfig: _check_preview,
}
"""Type of the algorithm's settings -> its check."""
