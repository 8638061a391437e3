"""A front in numbers: does each mean follow its weight, how much do the points cover, how far do they fall short."""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

import numpy as np

from alignlab.front.collect import FrontPoint
from alignlab.front.metrics import ExactCurve, distance_to_exact, hypervolume, monotonicity, nadir, non_dominated


def front_summary(
    points: Sequence[FrontPoint], *, exact: ExactCurve | None, reference: Sequence[float] | None
) -> dict[str, Any]:
    """front.json: numbers about all points with weights, and about the exact front at the same weights.

    `follows_weight`: Spearman's correlation of each objective's weight with its mean. `hypervolume`: with its corner,
    the reference's own point (what is better on every axis) and the exact front's nadir. `to_exact`: additive epsilon
    and IGD+ in reward units, only where the exact front is known at every weighting.

    Args:
        points: of one front.
        exact: the exact front.
        reference: the reference policy's mean on each axis.
    """
    weighed = [point for point in points if point.weights]
    found: dict[str, Any] = {"axes": list(points[0].axes), "points": len(weighed)}
    if not weighed:
        return found
    values_NM = np.array([point.position for point in weighed])
    found["follows_weight"] = follows_weight(weighed)
    found["non_dominated"] = int(non_dominated(values_NM).sum())
    rows = [None if exact is None else exact.index_of(tuple(point.weights.values())) for point in weighed]
    corners: dict[str, Sequence[float]] = {} if reference is None else {"reference": reference}
    sets = {"points": values_NM}
    if exact is not None and None not in rows:
        sets["exact"] = exact.means_KM[[row for row in rows if row is not None]]
        corners["nadir"] = nadir(sets["exact"])
        found["to_exact"] = asdict(distance_to_exact(values_NM, exact=sets["exact"]))
    found["hypervolume"] = {
        name: {"corner": list(corner)} | {of: hypervolume(held, reference=corner).volume for of, held in sets.items()}
        for name, corner in corners.items()
    }
    return found


def follows_weight(points: Sequence[FrontPoint]) -> dict[str, dict[str, Any]]:
    """Objective -> its axis, and Spearman's rank correlation of its weight with its mean over the points."""
    objectives = list(points[0].weights)
    found: dict[str, dict[str, Any]] = {}
    for place, (objective, axis) in enumerate(zip(objectives, points[0].axes, strict=True)):
        means: Mapping[str, list[float | None]] = {axis: [point.position[place] for point in points]}
        measured = monotonicity([point.weights[objective] for point in points], means)[axis]
        found[objective] = {"axis": axis, "rho": measured.rho, "n": measured.n}
    return found
