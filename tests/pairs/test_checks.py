"""Scores that rank nothing are refused by name; opposites, and prompts that a scorer does not rank, are said."""

import numpy as np
import pytest

from alignlab.errors import ConfigError
from alignlab.pairs.checks import check_scores, correlations, within_correlation

PROMPTS = ["a", "a", "b", "b"]
IDS = ["a-0", "a-1", "b-0", "b-1"]


def check(*columns):
    names = ["helpful", "safe"][: len(columns)]
    check_scores(np.array(columns, dtype=float).T, names, IDS, PROMPTS)


def test_good_scores_pass():
    check([0, 1, 2, 3], [1, 0, 0, 5])


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize(
    ("column", "line"),
    [
        ([0, 1, np.inf, 2], "scorers.helpful: the score of answer b-0 is inf"),
        ([np.nan] * 4, "scorers.helpful: scored none of 4 answers"),
        ([0.5] * 4, "scorers.helpful: scores all 4 answers 0.5, so it ranks nothing"),
        ([1, 1, 2, 2], "scorers.helpful: scores the answers of each prompt alike, so it ranks none of them"),
    ],
)
def test_scores_that_rank_nothing_are_one_line(column, line):
    with pytest.raises(ConfigError) as caught:
        check(column)
    assert str(caught.value) == line


def test_prompts_that_are_not_ranked_and_missing_scores_are_said(capfd):
    check([1, 1, 2, 3], [1, np.nan, 2, 0])
    said = capfd.readouterr().out
    assert "scorers.helpful: scores all answers alike on 1 of 2 prompts" in said
    assert "scorers.safe: gave 1 of 4 answers no score" in said


def test_opposites_are_warned_of(capfd):
    """Whatever their units, and whatever separates the prompts."""
    one = np.array([0.0, 1.0, 10.0, 14.0])
    found = correlations(np.stack([one, -3 * one + 7], axis=1), ["helpful", "safe"], PROMPTS)
    assert found["helpful, safe"] == pytest.approx(-1)
    said = capfd.readouterr().out
    assert "warning: scorers of helpful, safe are exact opposites" in said
    assert "straight line" in said
    correlations(np.stack([one, [3, 1, 0, 0]], axis=1), ["helpful", "safe"], PROMPTS)
    assert "warning" not in capfd.readouterr().out, "control"


def test_correlation_is_within_prompts():
    """Long prompts that have long answers are no sign of a scorer that pays for length."""
    one, other = np.array([0.0, 1.0, 100.0, 101.0]), np.array([1.0, 0.0, 101.0, 100.0])
    assert within_correlation(one, other, PROMPTS) == pytest.approx(-1)
    assert np.corrcoef(one, other)[0, 1] > 0.99, "control"
    assert within_correlation(one, np.ones(4), PROMPTS) is None


class Compared(str):
    """A prompt that counts how often it is compared with another."""

    __slots__ = ()
    times = 0
    __hash__ = str.__hash__

    def __eq__(self, other):
        Compared.times += 1
        return str.__eq__(self, other)


def test_many_prompts_are_not_compared_with_each_other(monkeypatch):
    """The value is that of a mask a prompt, whose work grows with the square of their number."""
    monkeypatch.setattr(Compared, "times", 0)
    rng = np.random.default_rng(0)
    one, other = rng.normal(size=(2, 600))
    one[5] = other[7] = np.nan
    names = [f"prompt {index % 300}" for index in range(600)]
    found = within_correlation(one, other, [Compared(name) for name in names])
    assert Compared.times < 10 * len(names)
    known = ~np.isnan(one + other)
    masks = [known & (np.array(names) == name) for name in dict.fromkeys(names)]
    parts = [(one[mask] - one[mask].mean(), other[mask] - other[mask].mean()) for mask in masks]
    expected = np.corrcoef(*(np.concatenate(side) for side in zip(*parts, strict=True)))[0, 1]
    assert found == pytest.approx(expected, abs=1e-12)
