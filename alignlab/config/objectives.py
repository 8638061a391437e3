"""Which objective a run trains on, what each weighs, and where the others' rewards come from."""

import dataclasses
import json
from collections.abc import Container, Mapping, Sequence
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
    if uses.data == "prompts" or uses.collects(config) is None:
        labelled = list(objectives)  # scorers rank the answers, whatever the data's labels say of other ones
    elif config.dataset.kind == "prompts":
        labelled = [name for name in objectives if name in config.scorers]
        if not labelled:
            needs = f"holds prompts and no responses, of which algorithm={config.algorithm.name} needs pairs"
            scorer = f"scorers.{next(iter(objectives))}.kind=probe"
            raise ConfigError(f"dataset={config.dataset.name}: {needs}; say what scores the model's own, e.g. {scorer}")
    if not uses.labels:
        weighs_adapter = uses.data is None  # whose objectives are weighed, whatever the data set's are
        order = _objectives_in(Path(str(value_at(config, "algorithm.adapter")))) if weighs_adapter else list(objectives)
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
    named = value_at(config, "algorithm.rewards") or {}
    trained = _heaviest(weights, labelled, named) if by_weight else first
    return Objectives(trained, weights, first)


def _objectives_in(adapter: Path) -> list[str]:
    """The objectives of a conditioned adapter."""
    card = adapter / "alignlab.json"
    try:
        found = json.loads(card.read_text(encoding="utf-8")).get("ranks")
    except (OSError, ValueError, AttributeError):
        found = None
    known = isinstance(found, dict) and bool(found)
    return list(found) if known else ["first", "second"]  # the check refuses such an adapter


def _heaviest(weights: dict[str, float], labelled: list[str], named: Container[str]) -> str:
    """The labelled objective of the largest weight; one that a reward is named for is trained on only if all are.

    Args:
        weights: of all objectives.
        labelled: those that the data rank by.
        named: those that algorithm.rewards names.
    """
    free = [name for name in labelled if name not in named] or labelled
    return max(free, key=lambda name: weights[name])


@dataclass(frozen=True)
class NamedReward:
    """The reward of one objective, as configured."""

    key: str
    """What its settings are typed under: `algorithm.rewards.OBJECTIVE`, `scorers.OBJECTIVE`, or `reward`.

    An endpoint, which has none, is named under `algorithm.adapters.OBJECTIVE`.
    """
    settings: "RewardConfig"


def reward_of(config: "RunConfig", objective: str) -> NamedReward:
    """The reward of one objective: algorithm.rewards.<objective>, else the group `reward`.

    On prompts alone it is the scorer whose scores the pairs were made by, in units of its differences, unless the
    algorithm needs the policy behind the reward. An endpoint is the policy behind an implicit reward.
    """
    needed = config.algorithm.uses.rewards
    if "endpoints" in needed:
        from alignlab.config.schema.reward import ImplicitConfig

        settings = ImplicitConfig(kind="implicit", normalise=False, adapter=None, beta=None)
        return NamedReward(f"algorithm.adapters.{objective}", settings)
    named: dict[str, RewardConfig] = value_at(config, "algorithm.rewards") or {}
    scored = config.dataset.kind == "prompts" and "policies" not in needed and objective not in named
    scorer = config.scorers.get(objective) if scored else None
    if scorer is not None and scorer.kind not in ("judge", "guard"):  # which leave some unscored
        return NamedReward(f"scorers.{objective}", dataclasses.replace(scorer, normalise=True))
    key = f"algorithm.rewards.{objective}" if objective in named else "reward"
    found = named.get(objective, config.reward)
    normalised = bool(value_at(config, "algorithm.normalise"))
    return NamedReward(key, dataclasses.replace(found, normalise=True) if normalised else found)


def rewards_of(config: "RunConfig", objectives: Objectives) -> dict[str, NamedReward]:
    """Objective -> the reward that a run needs: MODPO's others; elsewhere those that algorithm.rewards names.

    MODPO also needs the trained one's where that is weighed in units of its reward's differences.
    """
    needed, named = config.algorithm.uses.rewards, value_at(config, "algorithm.rewards") or {}
    names = list(objectives.others) if "others" in needed else []
    if names and objectives.trained in named and named[objectives.trained].normalise:  # `reward` is of the others alone
        names.append(objectives.trained)
    if "endpoints" in needed:
        adapters = named_endpoints(value_at(config, "algorithm.adapters"), objectives)
        names += [name for name in objectives.others if name not in adapters]
    if "named" in needed:
        names += named
    return {name: reward_of(config, name) for name in names}


def named_endpoints(adapters: Mapping[str, str] | None, objectives: Objectives) -> dict[str, str]:
    """Objective -> its own policy's adapter, of those that algorithm.adapters names and w weighs."""
    return {name: adapters[name] for name in objectives.others if name in adapters} if adapters else {}


def check_targets(targets: Mapping[str, float], objectives: Sequence[str]) -> None:
    """Refuse a target of what is no objective.

    Raises:
        ConfigError: with the nearest name.
    """
    for name, value in targets.items():
        if name not in objectives:
            raise ConfigError(f"target.{name}={value:g}: no such objective; {nearest(name, objectives)}")


def why_no_reward(key: str, w: object, objectives: Objectives, rewarded: Container[str]) -> str | None:
    """Why a key of algorithm.rewards.<objective> or algorithm.adapters changes nothing; None for any other key.

    Args:
        key: dotted.
        w: as configured.
        objectives: what it comes to.
        rewarded: the objectives whose rewards the run needs.
    """
    parts = key.split(".")
    used = {"rewards": rewarded, "adapters": objectives.others}
    if parts[0] != "algorithm" or len(parts) < 3 or parts[1] not in used or parts[2] in used[parts[1]]:
        return None
    why = "is trained on its pairs" if objectives.trained == parts[2] else "weighs nothing"
    return f"at w={w}, where {parts[2]} {why}"
