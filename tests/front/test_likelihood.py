import math

import pytest

from alignlab.front.likelihood import perplexity, token_loss


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
