"""Which objective a run trains on, what each weighs, and where the others' rewards come from."""

import dataclasses
from dataclasses import dataclass
from typing import TYPE_CHECKING

from alignlab.config.uses import value_at
from alignlab.config.weights import resolve_weights
from alignlab.errors import ConfigError, nearest

if TYPE_CHECKING:
    from alignlab.config.schema.reward import RewardConfig
    from alignlab.config.schema.run import RunConfig


@dataclass(frozen=True)
class Objectives:
    """Which objective is trained on pairs, and what each weighs."""

    trained: str
    weights: dict[str, float]

    @property
    def trained_weight(self) -> float:
        """Weight of the trained objective."""
        return self.weights[self.trained]

    @property
    def others(self) -> dict[str, float]:
        """The objectives that enter as rewards, with their weights; zero-weight ones have no effect."""
        return {name: w for name, w in self.weights.items() if name != self.trained and w > 0}

    @property
    def plain(self) -> float | list[float]:
        """As short as it says all: the first objective's weight where there are two that sum to 1, else all."""
        if len(self.weights) <= 2 and abs(sum(self.weights.values()) - 1) < 1e-9:
            return self.weights[self.trained]
        return list(self.weights.values())


def objectives_of(config: "RunConfig") -> Objectives:
    """The trained objective and the weights of a run.

    Raises:
        ConfigError: if the algorithm names an objective that the dataset lacks or has no labels of, or w does not fit.
    """
    objectives, uses = config.dataset.objectives, config.algorithm.uses
    labelled = [name for name, objective in objectives.items() if objective.label is not None]
    if uses.data == "prompts":
        labelled = list(objectives)  # scorers rank the answers, whatever the data's labels say of other ones
    elif config.dataset.kind == "prompts":
        labelled = [name for name in objectives if name in config.scorers]
        if not labelled:
            needs = f"holds prompts and no responses, of which algorithm={config.algorithm.name} needs pairs"
            scorer = f"scorers.{next(iter(objectives))}.kind=probe"
            raise ConfigError(f"dataset={config.dataset.name}: {needs}; say what scores the model's own, e.g. {scorer}")
    if not labelled:
        names = ", ".join(objectives)
        raise ConfigError(f"dataset.objectives: none of {names} has a label: there is nothing to train on")
    trained = value_at(config, "algorithm.objective") or labelled[min(uses.trained, len(labelled) - 1)]
    if trained not in objectives:
        raise ConfigError(f"algorithm.objective={trained}: no such objective; {nearest(trained, objectives)}")
    if trained not in labelled:
        reason = f"dataset={config.dataset.name} has no labels of it, so it can be a reward only"
        raise ConfigError(f"algorithm.objective={trained}: {reason}; {nearest(trained, labelled)}")
    if uses.weighs or value_at(config, "algorithm.select") == "weighted":
        weights = resolve_weights(config.w, objectives=list(objectives), trained=trained, scheme=config.weights.scheme)
    else:
        weights = {name: float(name == trained) for name in objectives}
    return Objectives(trained=trained, weights=weights)


def reward_of(config: "RunConfig", objective: str) -> "RewardConfig":
    """The reward settings of one objective: algorithm.rewards.<objective>, else the group `reward`.

    On prompts alone it is the scorer whose scores the pairs were made by, in units of its differences.
    """
    rewards: dict[str, RewardConfig] = value_at(config, "algorithm.rewards") or {}
    scorer = config.scorers.get(objective) if config.dataset.kind == "prompts" else None
    if objective in rewards or scorer is None or scorer.kind in ("judge", "guard"):  # which leave some unscored
        return rewards.get(objective, config.reward)
    own: RewardConfig = dataclasses.replace(scorer, normalise=True)
    return own


def rewarded(config: "RunConfig") -> list[str]:
    """The objectives whose rewards a run needs: MODPO's others; elsewhere those that algorithm.rewards names."""
    needed = config.algorithm.uses.rewards
    others = list(objectives_of(config).others) if "others" in needed else []
    given = list(value_at(config, "algorithm.rewards") or {}) if "named" in needed else []
    return list(dict.fromkeys([*others, *given]))
