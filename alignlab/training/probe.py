"""Fits a linear Bradley-Terry head: P(a preferred over b) = sigmoid(w . (features(a) - features(b))).

Shape letters: P pairs, F features, D directions of their row space.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression  # type: ignore[import-untyped]
from sklearn.model_selection import GroupKFold  # type: ignore[import-untyped]

from alignlab.config.names import PROBE_PROMPTS
from alignlab.errors import ConfigError

Floats = NDArray[np.float64]
RIDGES = tuple(10.0**power for power in range(-1, 6))
"""Penalties to choose from: half of one of these times the squared weights is added to the summed log loss."""
FOLDS = 5
NESTED_UP_TO = 2000
"""Pairs up to which out-of-fold margins choose their ridge anew in each fold; with more the choice hardly differs."""


def fit_probe(differences_PF: Floats, ridge: float) -> Floats:
    """Weights of the features, (F,), that minimise the pairs' summed log loss + ridge/2 |scaled weights|^2.

    Features are scaled by the root mean square of their differences, so that one penalty fits all of them. There is no
    intercept: a pair read the other way round must give the opposite answer.

    Args:
        differences_PF: features of the preferred minus those of the other response.
        ridge: strength of the penalty, > 0.
    """
    return _fits(differences_PF, [ridge])[0]


def _fits(differences_PF: Floats, ridges: Sequence[float]) -> list[Floats]:
    """The weights at several penalties."""
    scale_F = _scale(differences_PF)
    basis_DF, reduced_PD = _row_space(differences_PF / scale_F)
    mirrored = np.concatenate([reduced_PD, -reduced_PD])  # two classes, each with half the weight
    labels = np.repeat([1, 0], len(reduced_PD))
    found = []
    for ridge in ridges:
        model = LogisticRegression(C=0.5 / ridge, fit_intercept=False, tol=1e-9, max_iter=10_000)
        found.append(model.fit(mirrored, labels).coef_[0] @ basis_DF / scale_F)
    return found


def choose_ridge(differences_PF: Floats, groups: Sequence[str]) -> float:
    """The penalty whose held-out log loss is least in cross-validation over groups (prompts).

    Raises:
        ConfigError: if all pairs are of one group.
    """
    losses = np.zeros(len(RIDGES))
    for train, test in _folds(groups):
        for index, weights_F in enumerate(_fits(differences_PF[train], RIDGES)):
            losses[index] += np.logaddexp(0, -differences_PF[test] @ weights_F).sum()
    return RIDGES[int(np.argmin(losses))]


def out_of_fold(differences_PF: Floats, groups: Sequence[str], ridge: float | None) -> Floats:
    """Each pair's margin by a probe that saw no pair of its prompt, (P,).

    Args:
        differences_PF: features of the preferred minus those of the other response.
        groups: the prompt of each pair.
        ridge: the penalty; None chooses it within each fold, up to NESTED_UP_TO pairs.
    """
    if ridge is None and len(groups) > NESTED_UP_TO:
        ridge = choose_ridge(differences_PF, groups)
    margins_P = np.empty(len(groups))
    for train, test in _folds(groups, PROBE_PROMPTS):
        own = [groups[index] for index in train]
        chosen = choose_ridge(differences_PF[train], own) if ridge is None else ridge
        margins_P[test] = differences_PF[test] @ fit_probe(differences_PF[train], chosen)
    return margins_P


def require_groups(groups: Sequence[str], least: int = PROBE_PROMPTS) -> None:
    """Refuse pairs of too few prompts.

    Raises:
        ConfigError: saying how many there are.
    """
    found = len(set(groups))
    if found < least:
        raise ConfigError(f"algorithm.kind=probe: needs pairs of {least} prompts or more to be tested on, has {found}")


def _folds(groups: Sequence[str], least: int = 2) -> list[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    require_groups(groups, least)
    splitter = GroupKFold(n_splits=min(FOLDS, len(set(groups))))
    return list(splitter.split(np.zeros((len(groups), 1)), groups=list(groups)))


def _scale(differences_PF: Floats) -> Floats:
    """Root mean square of each feature's differences; 1 where a feature never differs."""
    scale_F = np.sqrt(np.square(differences_PF).mean(axis=0))
    return np.where(scale_F > 0, scale_F, 1.0)


def _row_space(rows_PF: Floats) -> tuple[Floats, Floats]:
    """(orthonormal directions (D, F), the rows in these (P, D)): a ridge solution lies in the span of its rows."""
    num_pairs, num_features = rows_PF.shape
    if num_features <= num_pairs:
        return np.eye(num_features), rows_PF
    left, sizes, right = np.linalg.svd(rows_PF, full_matrices=False)
    return right, left * sizes
