"""Conflict-averse descent against a plain float64 computation from the equations, on ten pairs of a linear model."""

import numpy as np
import pytest
import torch
from datasets import concatenate_datasets

from alignlab.training.conflict import ConflictAverseTrainer, ConflictAversion, worst_case
from alignlab.training.losses import PairLogps, PreferenceLoss
from support import against_trl
from support.against_trl import model_of, table_of, trained
from support.pairs_of_tokens import ranked_pairs

BETA, STRENGTH = 0.5, 0.4


def gradients_of_ten_pairs(seed, oppose=0.6):
    """g_i of L_i = mean -log sigmoid(beta s theta.x) of two objectives that rank ten pairs, mostly in opposite ways."""
    rng = np.random.default_rng(seed)
    features, theta = rng.normal(size=(10, 4)), rng.normal(size=4) / 2
    signs = np.where(rng.random((2, 10)) < [[0.5], [oppose]], 1.0, -1.0)
    signs[1, :6] = -signs[0, :6]
    margins = BETA * signs * (features @ theta)
    slopes = -BETA * signs / (1 + np.exp(margins))  # d/dx of -log sigmoid(x) is -1 / (1 + e^x)
    return slopes @ features / 10


def plain_direction(gradients, w, strength):
    """The equations over a fine grid of p, two objectives."""
    g_0 = w @ gradients
    p = np.linspace(0, 1, 200_001)[:, None] * [[1.0, -1.0]] + [[0.0, 1.0]]
    g_p = p @ gradients
    norms = np.linalg.norm(g_p, axis=1)
    best = p[np.argmin(g_p @ g_0 + strength * np.linalg.norm(g_0) * norms)]
    clipped = np.minimum(best, w)
    correction = clipped @ gradients
    return g_0 + strength * np.linalg.norm(g_0) * correction / np.linalg.norm(correction)


@pytest.mark.parametrize("w", [(0.5, 0.5), (0.1, 0.9), (0.7, 0.3)])
@pytest.mark.parametrize("seed", range(4))
def test_the_direction_is_the_equations_own(w, seed):
    gradients = gradients_of_ten_pairs(seed)
    found = ConflictAversion(w, STRENGTH).coefficients(gradients @ gradients.T) @ gradients
    wanted = plain_direction(gradients, np.array(w), STRENGTH)
    size = np.linalg.norm(wanted)
    assert np.linalg.norm(found - wanted) <= 1e-4 * size
    for wrong in ([1.0, -1.0], [-1.0, 1.0], [-1.0, -1.0]):
        turned = np.array(wrong)[:, None] * gradients
        other = ConflictAversion(w, STRENGTH).coefficients(turned @ turned.T) @ turned
        assert np.linalg.norm(other - wanted) > 0.05 * size, "control: a gradient of the wrong sign"
    assert np.linalg.norm(np.array(w) @ gradients - wanted) > 0.05 * size, "control: the weighted sum is another one"


@pytest.mark.parametrize("objectives", [2, 3])
def test_unclipped_it_serves_the_worst_off_objective_best(objectives):
    """The property that defines the direction: of all d within the ball none has a larger least g_i . d."""
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(objectives, 5))
    gradients /= np.linalg.norm(gradients, axis=1).max()
    w = np.full(objectives, 1 / objectives)
    g_0 = w @ gradients
    radius = STRENGTH * np.linalg.norm(g_0)
    g_p = worst_case(gradients @ gradients.T, w, radius) @ gradients
    direction = g_0 + radius * g_p / np.linalg.norm(g_p)
    steps = rng.normal(size=(20_000, 5))
    others = g_0 + radius * steps / np.linalg.norm(steps, axis=1, keepdims=True)
    least = (others @ gradients.T).min(axis=1)
    assert (gradients @ direction).min() >= least.max() - 1e-6
    assert (gradients @ (g_0 - radius * g_p / np.linalg.norm(g_p))).min() < least.max(), "control: the other sign"


def test_nothing_is_corrected_where_nothing_conflicts():
    gradients = gradients_of_ten_pairs(0)
    products = gradients @ gradients.T
    assert ConflictAversion((0.3, 0.7), 0.0).coefficients(products).tolist() == [0.3, 0.7]
    assert ConflictAversion((1.0,), STRENGTH).coefficients(products[:1, :1]).tolist() == [1.0]
    absent = np.diag([products[0, 0], 0.0])
    found = ConflictAversion((0.3, 0.7), STRENGTH).coefficients(absent) @ np.array([1.0, 0.0])
    assert found == pytest.approx(0.3, rel=1e-3), "an objective without pairs in the batch"


SETS = [0] * 10 + [1] * 10


def tables():
    first = table_of(ranked_pairs(), sets=SETS)
    turned = [(rejected, chosen) for chosen, rejected in ranked_pairs()]
    return first, table_of(turned, sets=SETS).select(range(4, 20))


def flat(step):
    return torch.cat([gradient.flatten() for gradient in step.values()])


@pytest.mark.parametrize("limit", [None, 7])
def test_a_step_follows_the_combined_gradient(limit, tmp_path, monkeypatch):
    """Two objectives' own first gradients, combined by hand, are the gradient that the optimizer gets."""
    settings = {"per_device_train_batch_size": 36, "max_steps": 1}
    parts = [
        trained("alignlab", model_of("llama"), table, tmp_path / str(number), settings=settings)
        for number, table in enumerate(tables())
    ]
    alone = torch.stack([flat(part.gradients[0]) for part in parts]).double().numpy()
    both = concatenate_datasets(list(tables())).add_column("objective", [0] * 20 + [1] * 16)
    conflict = ConflictAversion((0.3, 0.7), STRENGTH)
    make = lambda **named: ConflictAverseTrainer(conflict=conflict, pairs_per_forward=limit, **named)  # noqa: E731
    monkeypatch.setattr(against_trl, "PreferenceTrainer", make)
    found = trained("alignlab", model_of("llama"), both, tmp_path / "both", settings=settings)
    gradient = flat(found.gradients[0]).double().numpy()
    axes, _ = np.linalg.qr(alone.T)  # all directions lie in the gradients' plane, where the search is cheap
    wanted = axes @ plain_direction(alone @ axes, np.array([0.3, 0.7]), STRENGTH)
    assert np.linalg.norm(gradient - wanted) <= 1e-4 * np.linalg.norm(wanted)
    loss = 0.3 * parts[0].logs[0]["loss"] + 0.7 * parts[1].logs[0]["loss"]
    assert found.logs[0]["loss"] == pytest.approx(loss, rel=1e-5)
    cosine = alone[0] @ alone[1] / np.linalg.norm(alone[0]) / np.linalg.norm(alone[1])
    assert found.logs[0]["gradients/cosine"] == pytest.approx(cosine, rel=1e-3)
    assert cosine < 0, "control: the objectives conflict"


def test_ten_pairs_from_their_log_probabilities_to_the_step():
    """The code's own losses of ten pairs and two objectives, their gradients and the combination, in float64."""
    rng = np.random.default_rng(3)
    features, theta, w = rng.normal(size=(2, 10, 4)), rng.normal(size=4) / 2, np.array([0.3, 0.7])
    ref = rng.normal(size=(2, 10))
    signs = np.where(rng.random((2, 10)) < 0.5, 1, -1)  # 1 where an objective prefers the first response
    gradients = []
    for own in signs:
        weights = torch.tensor(theta, requires_grad=True)
        policy = torch.tensor(features) @ weights + torch.tensor(ref)
        first = torch.tensor(own == 1)
        chosen, rejected = torch.where(first, *policy), torch.where(first, *policy.flip(0))
        ref_chosen, ref_rejected = np.where(own == 1, *ref), np.where(own == 1, *ref[::-1])
        lengths = torch.full((10,), 3)
        pairs = PairLogps(chosen, rejected, torch.tensor(ref_chosen), torch.tensor(ref_rejected), lengths, lengths)
        losses = PreferenceLoss("sigmoid", beta=BETA).per_pair(pairs)
        margins = BETA * own * ((features[0] - features[1]) @ theta)
        assert losses.tolist() == pytest.approx(np.log1p(np.exp(-margins)).tolist(), rel=1e-12)
        assert losses.tolist() != pytest.approx(np.log1p(np.exp(margins)).tolist(), rel=0.01), "control: turned round"
        losses.mean().backward()
        plain = (-BETA * own / (1 + np.exp(margins))) @ (features[0] - features[1]) / 10
        assert weights.grad.tolist() == pytest.approx(plain.tolist(), rel=1e-10)
        gradients.append(plain)
    both = np.array(gradients)
    step = ConflictAversion(tuple(w), STRENGTH).coefficients(both @ both.T) @ both
    wanted = plain_direction(both, w, STRENGTH)
    assert np.linalg.norm(step - wanted) <= 1e-4 * np.linalg.norm(wanted)
