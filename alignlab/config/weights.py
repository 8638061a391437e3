"""From `w` to one weight per objective. Pure functions, no torch."""

import math
from collections.abc import Mapping, Sequence
from numbers import Real

from alignlab.errors import ConfigError, nearest

SUM_TOLERANCE = 1e-6
"""How far weights that must sum to one may be off, so that w=[0.33,0.33,0.34] and its like pass."""


def resolve_weights(
    w: object, *, objectives: Sequence[str], trained: str, scheme: str, extrapolate: bool | None = None
) -> dict[str, float]:
    """One weight per objective, in the order of `objectives`.

    Args:
        w: a number (the weight of the trained objective), a list with the trained objective first and the others
            in dataset order, or a mapping from objective to weight.
        objectives: the dataset's objectives, in its order.
        trained: the objective whose preference pairs are trained on.
        scheme: `convex` (weights >= 0, sum 1; a number means w and 1-w), `penalty` (a number means 1 for the trained
            objective and w for the other; sums are free) or `vector` (a list or a mapping; sums are free).
        extrapolate: whether weights below 0 are taken; None where the algorithm knows no such weights.

    Raises:
        ConfigError: if w is not of these forms, or breaks the scheme's rule.
    """
    if isinstance(w, Mapping):
        weights = _from_mapping(w, objectives)
    elif isinstance(w, Sequence) and not isinstance(w, str):
        weights = _from_list(w, objectives, trained)
    else:
        weights = _from_number(w, objectives, trained, scheme, extrapolate)
    remedy = _BEYOND if extrapolate is False else ""
    for name, value in weights.items():
        if value < 0 and not extrapolate:
            raise ConfigError(f"w={_show(w)}: the weight of {name} is {value:g}, must be >= 0{remedy}")
    if scheme == "convex" and abs(sum(weights.values()) - 1) > SUM_TOLERANCE:
        raise ConfigError(f"w={_show(w)}: weights sum to {sum(weights.values()):g}, must sum to 1 (weights=convex)")
    return {name: weights[name] for name in objectives}


_BEYOND = "; algorithm.extrapolate=true takes it"


def _from_number(
    w: object, objectives: Sequence[str], trained: str, scheme: str, extrapolate: bool | None
) -> dict[str, float]:
    value = _number(w, "w")
    if scheme == "vector":
        example = ",".join(["1.0", "0.5", *["0.1"] * len(objectives)][: len(objectives)])
        raise ConfigError(f"w={_show(w)}: weights=vector takes one weight for each objective, e.g. w=[{example}]")
    if scheme == "convex" and not 0 <= value <= 1 and not extrapolate:
        remedy = _BEYOND if extrapolate is False else ""
        raise ConfigError(f"w={_show(w)}: must be between 0 and 1 (weights=convex: w and 1-w){remedy}")
    if len(objectives) == 1:
        if scheme == "convex" and value != 1:
            raise ConfigError(
                f"w={_show(w)}: {trained} is the only objective, so there is nothing to balance; use algorithm=dpo, or "
                "add one that a reward stands for, dataset.unlabelled=[NAME] and algorithm.rewards.NAME"
            )
        return {trained: value}
    if len(objectives) != 2:
        raise ConfigError(
            f"w={_show(w)}: one number serves two objectives, here are {len(objectives)} "
            f"({', '.join(objectives)}); give a list, e.g. w=[{','.join(['0.5'] + ['...'] * (len(objectives) - 1))}]"
        )
    other = next(name for name in objectives if name != trained)
    return {trained: value, other: 1 - value} if scheme == "convex" else {trained: 1.0, other: value}


def _from_list(w: Sequence[object], objectives: Sequence[str], trained: str) -> dict[str, float]:
    if len(w) != len(objectives):
        raise ConfigError(f"w={_show(w)}: {len(w)} weights for {len(objectives)} objectives ({', '.join(objectives)})")
    order = [trained, *(name for name in objectives if name != trained)]
    return {name: _number(value, f"w of {name}") for name, value in zip(order, w, strict=True)}


def _from_mapping(w: Mapping[object, object], objectives: Sequence[str]) -> dict[str, float]:
    for name in w:
        if name not in objectives:
            raise ConfigError(f"w.{name}: no such objective; {nearest(str(name), objectives)}")
    missing = [name for name in objectives if name not in w]
    if missing:
        raise ConfigError(f"w={_show(w)}: no weight for {', '.join(missing)}")
    return {str(name): _number(value, f"w.{name}") for name, value in w.items()}


def _number(value: object, key: str) -> float:
    if isinstance(value, bool) or not isinstance(value, Real) or not math.isfinite(float(value)):
        raise ConfigError(f"{key}={_show(value)}: must be a finite number, or a list with one weight per objective")
    return float(value)


def _show(w: object) -> str:
    """The weights as a user types them."""
    if w is None or isinstance(w, bool):
        return "null" if w is None else str(w).lower()
    return str(w).replace("'", "").replace(" ", "")
