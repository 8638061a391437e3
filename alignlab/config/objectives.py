"""Which objective a run trains on, what each weighs, and where the others' rewards come from."""

import dataclasses
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from alignlab.config.uses import value_at
from alignlab.config.weights import resolve_weights
from alignlab.errors import ConfigError, nearest

if TYPE_CHECKING:
    from alignlab.config.schema.reward import RewardConfig
    from alignlab.config.schema.run import RunConfig


HEAVIEST = "heaviest"
"""algorithm.objective that leaves the choice to the weights."""


@dataclass(frozen=True)
class Objectives:
    """Which objective's labels are trained on, and what each objective weighs."""

    trained: str
    """Empty where no labels are trained on: every objective then enters as a reward."""
    weights: dict[str, float]
    first: str
    """The objective whose weight a single number w is."""

    @property
    def trained_weight(self) -> float:
        """Weight of the trained objective."""
        return self.weights[self.trained]

    @property
    def others(self) -> dict[str, float]:
        """The objectives that enter as rewards, with their weights; zero-weight ones have no effect."""
        return {name: w for name, w in self.weights.items() if name != self.trained and w != 0}

    @property
    def plain(self) -> float | list[float]:
        """As short as it says all: the first objective's weight where there are two that sum to 1, else all."""
        if len(self.weights) <= 2 and abs(sum(self.weights.values()) - 1) < 1e-9:
            return self.weights[self.first]
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
    if not uses.labels:
        order = _of_adapter(config) or list(objectives)
        first, scheme = order[0], config.weights.scheme
        if not uses.weighs:  # trained for every w
            return Objectives("", dict.fromkeys(order, 1 / len(order)), first)
        beyond = value_at(config, "algorithm.extrapolate")
        weights = resolve_weights(config.w, objectives=order, trained=first, scheme=scheme, extrapolate=beyond)
        return Objectives("", weights, first)
    if not labelled:
        names = ", ".join(objectives)
        raise ConfigError(f"dataset.objectives: none of {names} has a label: there is nothing to train on")
    asked = value_at(config, "algorithm.objective")
    by_weight = uses.weighs and asked == HEAVIEST
    first = labelled[min(uses.trained, len(labelled) - 1)] if by_weight or asked is None else asked
    if first not in objectives:
        known = [*objectives, HEAVIEST] if uses.weighs else objectives
        raise ConfigError(f"algorithm.objective={first}: no such objective; {nearest(first, known)}")
    if first not in labelled:
        reason = f"dataset={config.dataset.name} has no labels of it, so it can be a reward only"
        raise ConfigError(f"algorithm.objective={first}: {reason}; {nearest(first, labelled)}")
    if not uses.weighs and value_at(config, "algorithm.select") != "weighted":
        return Objectives(first, {name: float(name == first) for name in objectives}, first)
    weights = resolve_weights(config.w, objectives=list(objectives), trained=first, scheme=config.weights.scheme)
    trained = _heaviest(config, weights, labelled) if by_weight else first
    return Objectives(trained, weights, first)


def _of_adapter(config: "RunConfig") -> list[str]:
    """The objectives of a conditioned adapter, which an export weighs, whatever the data set's are; else none."""
    if config.algorithm.uses.data is not None:
        return []
    card = Path(str(value_at(config, "algorithm.adapter"))) / "alignlab.json"
    try:
        found = json.loads(card.read_text(encoding="utf-8")).get("ranks")
    except (OSError, ValueError, AttributeError):
        found = None
    known = isinstance(found, dict) and bool(found)
    return list(found) if known else ["first", "second"]  # the check refuses such an adapter


def _heaviest(config: "RunConfig", weights: dict[str, float], labelled: list[str]) -> str:
    """The labelled objective of the largest weight; one that a reward is named for is trained on only if all are."""
    named = value_at(config, "algorithm.rewards") or {}
    free = [name for name in labelled if name not in named] or labelled
    return max(free, key=lambda name: weights[name])


def reward_of(config: "RunConfig", objective: str) -> "RewardConfig":
    """The reward settings of one objective: algorithm.rewards.<objective>, else the group `reward`.

    On prompts alone it is the scorer whose scores the pairs were made by, in units of its differences, unless the
    algorithm needs the policy behind the reward. An endpoint is the policy behind an implicit reward.
    """
    if "endpoints" in config.algorithm.uses.rewards:
        from alignlab.config.schema.reward import ImplicitConfig

        return ImplicitConfig(kind="implicit", normalise=False, adapter=None, beta=None)
    rewards: dict[str, RewardConfig] = value_at(config, "algorithm.rewards") or {}
    is_scorer = config.dataset.kind == "prompts" and "policies" not in config.algorithm.uses.rewards
    scorer = config.scorers.get(objective) if is_scorer else None
    if objective in rewards or scorer is None or scorer.kind in ("judge", "guard"):  # which leave some unscored
        found = rewards.get(objective, config.reward)
        return dataclasses.replace(found, normalise=True) if value_at(config, "algorithm.normalise") else found
    own: RewardConfig = dataclasses.replace(scorer, normalise=True)
    return own


def rewarded(config: "RunConfig") -> list[str]:
    """The objectives whose rewards a run needs: MODPO's others; elsewhere those that algorithm.rewards names.

    MODPO also needs the trained one's where that is weighed in units of its reward's differences.
    """
    needed = config.algorithm.uses.rewards
    others = list(objectives_of(config).others) if "others" in needed else []
    if others and (trained := objectives_of(config).trained) and _is_normalised(config, trained):
        others.append(trained)
    given = list(value_at(config, "algorithm.rewards") or {}) if "named" in needed else []
    if "endpoints" in needed:
        adapters = value_at(config, "algorithm.adapters") or {}
        others += [name for name in objectives_of(config).others if name not in adapters]
    return list(dict.fromkeys([*others, *given]))


def _is_normalised(config: "RunConfig", objective: str) -> bool:
    """Whether algorithm.rewards.<objective>.normalise=true names it; the group `reward` is of the others alone."""
    named = (value_at(config, "algorithm.rewards") or {}).get(objective)
    return named is not None and named.normalise


def named_endpoints(config: "RunConfig") -> dict[str, str]:
    """Objective -> its own policy's adapter, of those that algorithm.adapters names and w weighs."""
    adapters: dict[str, str] = value_at(config, "algorithm.adapters") or {}
    return {name: adapters[name] for name in objectives_of(config).others if name in adapters}


def check_targets(targets: Mapping[str, float], objectives: Sequence[str]) -> None:
    """Refuse a target of what is no objective.

    Raises:
        ConfigError: with the nearest name.
    """
    for name, value in targets.items():
        if name not in objectives:
            raise ConfigError(f"target.{name}={value:g}: no such objective; {nearest(name, objectives)}")


def why_no_reward(config: "RunConfig", key: str) -> str | None:
    """Why a key of algorithm.rewards.<objective> or algorithm.adapters changes nothing; None for any other key."""
    parts = key.split(".")
    used = {"rewards": rewarded(config), "adapters": objectives_of(config).others}
    if parts[0] != "algorithm" or len(parts) < 3 or parts[1] not in used or parts[2] in used[parts[1]]:
        return None
    trained = objectives_of(config).trained == parts[2]
    return f"at w={config.w}, where {parts[2]} {'is trained on its pairs' if trained else 'weighs nothing'}"
