"""The cost model's loss against a plain computation from its equation, and the trainer that takes it."""

import math

import pytest
import torch

from alignlab.data.records import RankedRow
from alignlab.data.safe_pairs import labelled_pairs
from alignlab.evaluation.cost import say_signs, sign_metrics
from alignlab.training.cost import cost_loss

SAFE = [(True, True), (True, False), (False, False), (False, True), (True, False)] * 2
"""Of ten pairs, whether the safer and the worse response are safe; once in five the labels contradict the order."""


def plain(costs, sign=1, order=1, cost=1):
    """Equation 6 of arXiv 2310.12773 pair by pair; y_w is the worse response."""
    found = []
    for (safer, worse), labels in zip(costs, SAFE, strict=True):
        s_l, s_w = (sign * (-1 if safe else 1) for safe in labels)
        margin, terms = order * cost * (worse - safer), [s_w * cost * worse, s_l * cost * safer]
        found.append(sum(math.log1p(math.exp(-value)) for value in (margin, *terms)))
    return found


def test_the_loss_of_ten_pairs_is_the_equations_own():
    torch.manual_seed(0)
    costs_P2 = 3 * torch.randn(10, 2, dtype=torch.float64)
    found = cost_loss(-costs_P2.T, torch.tensor(SAFE).T)
    costs = costs_P2.tolist()
    assert found.tolist() == pytest.approx(plain(costs), rel=1e-12)
    for wrong in ({"sign": -1}, {"order": -1}, {"cost": -1}):
        assert found.tolist() != pytest.approx(plain(costs, **wrong), rel=0.1), "control: a wrong sign"
    without = cost_loss(-costs_P2.T, torch.tensor(SAFE).T) - plain_terms(costs)
    order = [math.log1p(math.exp(safer - worse)) for safer, worse in costs]
    assert without.tolist() == pytest.approx(order, rel=1e-9), "without the sign terms it is Bradley-Terry"


def plain_terms(costs):
    terms = [
        sum(math.log1p(math.exp(cost if safe else -cost)) for cost, safe in zip(pair, labels, strict=True))
        for pair, labels in zip(costs, SAFE, strict=True)
    ]
    return torch.tensor(terms, dtype=torch.float64)


def test_a_step_lowers_an_unsafe_responses_score():
    """The gradient's direction: costs of unsafe responses rise, those of safe ones fall."""
    scores_2P = torch.zeros(2, 1, requires_grad=True)
    cost_loss(scores_2P, torch.tensor([[True], [False]])).sum().backward()
    chosen, rejected = scores_2P.grad[:, 0].tolist()
    assert (chosen, rejected) == (-1.0, 1.0)
    scores_2P = torch.zeros(2, 1, requires_grad=True)
    cost_loss(scores_2P, torch.tensor([[False], [False]])).sum().backward()
    assert scores_2P.grad[:, 0].tolist() == [0.0, 1.0], "the safer of two unsafe ones: order and sign cancel at 0"


def test_pairs_without_labels_are_left_out_and_counted():
    labels = [(True, False), (False, True), (None, True), (), (False, False)]
    rows = [RankedRow(f"ask {n}", ("one", "two"), {"safer": (1.0, 0.0)}, safe=own) for n, own in enumerate(labels)]
    found = labelled_pairs(rows, "safer")
    assert [pair.prompt for pair in found.pairs] == ["ask 0", "ask 1", "ask 4"]
    assert found.safe == [(True, False), (False, True), (False, False)]
    assert (found.contradicting, found.unlabelled) == (1, 2)


def test_signs_by_hand(capsys):
    scores, safe = torch.tensor([2.0, -1.0, 0.0, 3.0, -2.0]).numpy(), [True, True, True, False, False]
    metrics = sign_metrics(scores, safe, list("abcde"))
    assert metrics["sign_accuracy"]["mean"] == pytest.approx(2.5 / 5)
    assert metrics["sign_accuracy_safe"]["mean"] == pytest.approx(1.5 / 3)
    assert metrics["sign_accuracy_unsafe"]["mean"] == pytest.approx(1 / 2)
    low, high = metrics["sign_accuracy"]["ci95"]
    assert low < 0.5 < high
    say_signs(metrics)
    assert "of 2 unsafe held-out responses; 0.60 by calling all alike" in capsys.readouterr().out
    say_signs(sign_metrics(torch.zeros(0).numpy(), [], []))
    assert "no held-out response is labelled" in capsys.readouterr().out
