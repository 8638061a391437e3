"""RACO: one gradient for each objective's loss, combined by conflict-averse descent whose correction w limits.

With g_i the gradient of objective i's loss and g_0 = sum_i w_i g_i, conflict-averse descent takes

    d = g_0 + c |g_0| g_p / |g_p|,    p = argmin over the simplex of  g_p . g_0 + c |g_0| |g_p|,    g_p = sum_i p_i g_i,

of all d with |d - g_0| <= c |g_0| the one along which the worst-off objective falls fastest. RACO corrects by
q_i = min(p_i, w_i) in place of p_i, so that no objective is helped by more than its weight.

Sources: Liu et al. 2021 (CAGrad), arXiv:2110.14048, eq. 4 and algorithm 1; Chen et al. 2026 (RACO), arXiv:2602.02495.
Shape letters: M objectives.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby
from typing import Any

import numpy as np
import torch
from scipy.optimize import minimize  # type: ignore[import-untyped]
from torch import Tensor

from alignlab.training.collate import Row, StepCollator
from alignlab.training.preference import PreferenceTrainer

SMALLEST = 1e-12
"""Squared norm, relative to the largest gradient's, below which a gradient counts as zero."""


@dataclass(frozen=True)
class ConflictAversion:
    """How the objectives' gradients are combined."""

    weights: tuple[float, ...]
    """w of the objectives that are trained on, M of them, each > 0."""
    strength: float
    """c: how far the combined gradient may lie from the weighted sum, in units of its norm; 0 keeps the sum."""

    def coefficients(self, products_MM: np.ndarray) -> np.ndarray:
        """What each objective's gradient is multiplied by, (M,).

        One objective has nobody to conflict with: it keeps its weight.

        Args:
            products_MM: scalar products of the objectives' gradients, float64.
        """
        w = np.array(self.weights)
        size = float(np.max(np.diag(products_MM)))
        if len(w) == 1 or not self.strength or size == 0:
            return w
        products_MM = products_MM / size
        radius = self.strength * _norm(products_MM, w)
        clipped = np.minimum(worst_case(products_MM, w, radius), w)
        length = _norm(products_MM, clipped)
        return w if length**2 < SMALLEST else w + radius * clipped / length


def worst_case(products_MM: np.ndarray, w: np.ndarray, radius: float) -> np.ndarray:
    """The p of conflict-averse descent: argmin over the simplex of g_p . g_0 + radius |g_p|, (M,).

    Args:
        products_MM: scalar products of the gradients, the largest of which has norm 1.
        w: weights that make g_0.
        radius: c |g_0|.
    """
    along_M = products_MM @ w

    def objective(p: np.ndarray) -> tuple[float, np.ndarray]:
        length = np.sqrt(max(p @ products_MM @ p, 0.0) + SMALLEST)
        return p @ along_M + radius * length, along_M + radius * (products_MM @ p) / length

    found = minimize(
        objective,
        w / w.sum(),
        jac=True,
        method="SLSQP",
        bounds=[(0.0, 1.0)] * len(w),
        constraints={"type": "eq", "fun": lambda p: p.sum() - 1, "jac": np.ones_like},
        options={"ftol": 1e-14, "maxiter": 200},
    )
    p = np.clip(found.x, 0.0, 1.0)
    result: np.ndarray = p / p.sum()
    return result


def _norm(products_MM: np.ndarray, coefficients_M: np.ndarray) -> float:
    return float(np.sqrt(max(coefficients_M @ products_MM @ coefficients_M, 0.0)))


class ObjectiveCollator(StepCollator):
    """StepCollator whose forwards each hold pairs of one objective, and weigh within that objective's pairs."""

    def __call__(self, rows: list[Row]) -> dict[str, list[dict[str, Any]]]:
        """The forwards of one batch, objective by objective."""
        forwards = []
        for index in sorted({row["objective"] for row in rows}):
            own = super().__call__([row for row in rows if row["objective"] == index])["forwards"]
            forwards += [{**forward, "objective": index} for forward in own]
        return {"forwards": forwards}


class ConflictAverseTrainer(PreferenceTrainer):
    """PreferenceTrainer whose step follows the combined gradient; the loss is still sum_i w_i L_i.

    Column beside PreferenceTrainer's: `objective`, an index into the weights. An objective without pairs in a batch has
    the gradient 0, and then nothing is corrected.

    Args:
        conflict: how gradients are combined.
        named: PreferenceTrainer's. One process only.
    """

    collator_class = ObjectiveCollator

    def __init__(self, *, conflict: ConflictAversion, **named: Any) -> None:
        self.conflict = conflict
        self.cosines: list[float] = []
        """Least cosine between two objectives' gradients, of each step since the last log line."""
        super().__init__(**named)
        assert self.args.world_size == 1

    def _backward(self, model: Any, forwards: list[dict[str, Any]], num_items_in_batch: Any) -> Tensor:
        """Compute every objective's gradient in turn, then set each parameter's to their combination."""
        weights = [parameter for parameter in model.parameters() if parameter.requires_grad]
        gradients: list[list[Tensor | None]] = [[] for _ in self.conflict.weights]
        total = torch.zeros((), device=self.accelerator.device)
        for index, own in groupby(forwards, key=lambda forward: forward["objective"]):
            total += self.conflict.weights[index] * super()._backward(model, list(own), num_items_in_batch)
            gradients[index] = [parameter.grad for parameter in weights]
            for parameter in weights:
                parameter.grad = None
        products_MM = _products(gradients)
        self.cosines.append(_least_cosine(products_MM))
        coefficients = self.conflict.coefficients(products_MM)
        for number, parameter in enumerate(weights):
            parts = [(c, own[number]) for c, own in zip(coefficients.tolist(), gradients, strict=True) if own]
            known = [c * part for c, part in parts if part is not None]
            parameter.grad = torch.stack(known).sum(dim=0) if known else None
        return total

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add the mean cosine: below 0 the objectives' gradients conflict."""
        cosines = [cosine for cosine in self.cosines if not np.isnan(cosine)]
        self.cosines = []
        super().log(logs | ({"gradients/cosine": float(np.mean(cosines))} if cosines else {}), start_time)


def _products(gradients: Sequence[Sequence[Tensor | None]]) -> np.ndarray:
    """Scalar products of the objectives' gradients, (M, M) in float64; an objective without any has the gradient 0."""
    products_MM = np.zeros((len(gradients), len(gradients)))
    for row, left in enumerate(gradients):
        for column, right in enumerate(gradients[: row + 1]):
            parts = [
                (one.double() * other.double()).sum()
                for one, other in zip(left, right, strict=bool(left and right))
                if one is not None and other is not None
            ]
            value = float(torch.stack(parts).sum()) if parts else 0.0
            products_MM[row, column] = products_MM[column, row] = value
    return products_MM


def _least_cosine(products_MM: np.ndarray) -> float:
    """NaN where fewer than two gradients differ from 0."""
    norms_M = np.sqrt(np.diag(products_MM))
    found = [
        products_MM[row, column] / (norms_M[row] * norms_M[column])
        for row in range(len(norms_M))
        for column in range(row)
        if norms_M[row] * norms_M[column] > 0
    ]
    return float(min(found)) if found else float("nan")
