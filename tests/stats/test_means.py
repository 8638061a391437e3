"""Means, slopes and token losses: by hand, by simulation, and what must stay unknown."""

import math

import numpy as np
import pytest

from alignlab.stats import Interval, clustered_slope, mean_interval, perplexity, token_loss


def test_the_loss_is_of_all_tokens_together():
    loss = token_loss([-2.0, -9.0], [2, 3], ["a", "b"])
    assert loss.mean == pytest.approx(11 / 5)
    assert loss.n == 2
    assert perplexity(loss).mean == pytest.approx(math.exp(11 / 5))


def test_the_interval_counts_prompts_not_texts():
    texts = [(-3.0, 2, "a"), (-4.0, 2, "b"), (-7.0, 2, "c")]
    once = token_loss(*zip(*texts, strict=True))
    doubled = token_loss(*zip(*texts, *texts, strict=True))
    assert (doubled.mean, doubled.n) == (pytest.approx(once.mean), 6)
    assert doubled.half_width == pytest.approx(once.half_width)


def test_equal_lengths_give_the_t_interval_of_the_mean():
    values = [1.0, 2.0, 4.0]
    loss = token_loss([-3 * value for value in values], [3, 3, 3], ["a", "b", "c"])
    mean = sum(values) / 3
    sd = math.sqrt(sum((value - mean) ** 2 for value in values) / 2)
    assert loss.half_width == pytest.approx(4.30265 * sd / math.sqrt(3), rel=1e-5)


def test_one_prompt_has_no_interval():
    assert token_loss([-1.0, -2.0], [1, 1], ["a", "a"]).low is None
    assert perplexity(token_loss([-1.0], [1], ["a"])).high is None


def test_interval_by_hand():
    found = mean_interval([1.0, 2.0, 3.0])
    half = 4.302652729911275 / math.sqrt(3)  # t(0.975, 2) * 1 / sqrt(3)
    assert (found.mean, found.n, found.missing) == (2.0, 3, 0)
    assert (found.low, found.high) == (pytest.approx(2 - half), pytest.approx(2 + half))
    assert found.half_width == pytest.approx(half)


def test_groups_of_one_value_are_no_groups():
    values = [1.0, 4.0, 2.0, 8.0]
    assert mean_interval(values, groups="abcd") == mean_interval(values)


def test_repeating_every_value_within_its_group_tells_nothing_new():
    values, groups = [1.0, 4.0, 2.0], ["a", "b", "c"]
    once, often = mean_interval(values, groups), mean_interval(values * 5, groups * 5)
    assert (often.mean, often.low, often.high) == pytest.approx((once.mean, once.low, once.high))
    assert (once.n, often.n) == (3, 15)
    ignoring = mean_interval(values * 5)  # negative control: without groups it would look much surer
    assert ignoring.half_width < often.half_width / 2


def test_each_group_counts_once():
    assert mean_interval([0.0, 0.0, 0.0, 1.0], groups="aaab").mean == 0.5


def test_interval_covers_the_truth_about_as_often_as_it_says():
    rng = np.random.default_rng(3)
    prompts = np.repeat(np.arange(12), 8)
    hits = 0
    for _ in range(400):
        values = rng.normal(size=12)[prompts] + rng.normal(size=96)
        found = mean_interval(values.tolist(), prompts.tolist())
        hits += found.low <= 0 <= found.high
    assert 0.91 < hits / 400 < 0.985


def test_unknown_values_are_left_out_and_counted():
    found = mean_interval([1.0, None, 3.0, math.nan, 2.0])
    assert found == Interval(2.0, mean_interval([1.0, 3.0, 2.0]).low, mean_interval([1.0, 3.0, 2.0]).high, 3, 2, 3)


@pytest.mark.parametrize(
    ("values", "groups", "expected"),
    [
        ([], None, Interval(None, None, None, 0, 0, 0)),
        ([None, math.nan], None, Interval(None, None, None, 0, 2, 0)),
        ([1.5], None, Interval(1.5, None, None, 1, 0, 1)),
        ([1.0, 2.0], "aa", Interval(1.5, None, None, 2, 0, 1)),
        ([0.1] * 7, None, Interval(pytest.approx(0.1), None, None, 7, 0, 7)),
    ],
)
def test_what_the_data_do_not_tell_is_none_and_never_a_width_of_zero(values, groups, expected):
    assert mean_interval(values, groups) == expected


def test_interval_refuses_infinity_and_ragged_groups():
    with pytest.raises(ValueError, match="infinite"):
        mean_interval([1.0, math.inf])
    with pytest.raises(ValueError, match="groups"):
        mean_interval([1.0, 2.0], groups=["a"])


def test_groups_are_counted():
    assert mean_interval([0.0, 1.0, 2.0, None], groups="aabb").groups == 2
    assert mean_interval([0.0, 1.0, 2.0]).groups == 3
    assert token_loss([-1.0, -2.0, -1.5], [1, 1, 2], "aab").groups == 2


def test_a_slope_by_hand():
    """The jackknife's: each group's score over the part of sum x^2 that the others hold, 4/5 and 1/5."""
    found = clustered_slope([3.0, 3.0], [1.0, 2.0], "ab")
    slope = (3 + 6) / 5
    scores = [(3 - slope) * 1 / (4 / 5), (3 - 2 * slope) * 2 / (1 / 5)]
    half = 12.706204736432095 * math.sqrt(1 / 2 * sum(score**2 for score in scores)) / 5
    assert (found.mean, found.n, found.groups) == (pytest.approx(slope), 2, 2)
    assert found.half_width == pytest.approx(half)


def test_a_slope_without_differences_is_unknown():
    assert clustered_slope([1.0, 2.0], [0.0, 0.0], "ab") == Interval(None, None, None, 2, groups=2)
    assert clustered_slope([1.0, 2.0], [1.0, 2.0], "aa").low is None


def slopes(num_groups, worlds=400):
    """Simulated slopes of 1 with five pairs a prompt, whose errors are alike within the prompt."""
    rng = np.random.default_rng(7)
    groups = np.repeat(np.arange(num_groups), 5)
    for _ in range(worlds):
        x = rng.normal(size=len(groups)) + rng.normal(size=num_groups)[groups]
        yield x + rng.normal(size=len(groups)) + (rng.normal(size=num_groups)[groups]) * x, x, groups


@pytest.mark.parametrize("num_groups", [10, 20, 42])
def test_the_slopes_interval_covers(num_groups):
    found = [clustered_slope(*world) for world in slopes(num_groups)]
    assert np.mean([one.low <= 1 <= one.high for one in found]) >= 0.91


def test_a_slopes_interval_by_the_normal_would_not_cover():
    """Control: 1.96 and no small-sample factor, as it was."""
    inside = []
    for y, x, groups in slopes(10):
        slope, power = float(x @ y) / float(x @ x), float(x @ x)
        sums = np.bincount(groups, weights=(y - slope * x) * x)
        inside.append(abs(slope - 1) <= 1.96 * math.sqrt(np.square(sums).sum()) / power)
    assert np.mean(inside) < 0.9
