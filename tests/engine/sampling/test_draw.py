import pytest
import torch

from alignlab.engine.sampling.draw import NO_TOKEN, RandomStream, Sampling, draw_tokens


def numbers(rows, count=64, seed=0):
    return [RandomStream(str(row), seed=seed, count=count) for row in range(rows)]


def draw(logits, *, temperature=1.0, top_p=1.0, seed=0):
    """One token for every row, each row a sample of its own."""
    own = numbers(len(logits), seed=seed)

    def again(rows, attempt):
        return torch.tensor([own[row].attempt(attempt)[0] for row in rows], dtype=torch.float64)

    return draw_tokens(logits, again(range(len(logits)), 0), again, Sampling(temperature, top_p))


def sorted_nucleus(probs, top_p):
    """The textbook way: the nucleus by a sort, renormalised."""
    ordered, indices = probs.sort(descending=True)
    kept = ordered.cumsum(0) - ordered < top_p
    nucleus = torch.zeros_like(probs)
    nucleus[indices[kept]] = ordered[kept]
    return nucleus / nucleus.sum()


@pytest.mark.parametrize(("top_p", "temperature"), [(1.0, 1.0), (0.7, 0.8), (0.3, 1.0), (0.95, 2.0)])
def test_frequencies_are_those_of_the_sorted_nucleus(top_p, temperature):
    torch.manual_seed(0)
    logits = torch.randn(100) * 2
    count = 8000
    seen = torch.bincount(draw(logits.repeat(count, 1), top_p=top_p, temperature=temperature), minlength=100) / count
    expected = sorted_nucleus(torch.softmax(logits / temperature, -1), top_p)
    assert (seen[expected == 0] == 0).all()
    spread = (expected * (1 - expected) / count).sqrt()
    assert ((seen - expected).abs() <= 5 * spread + 1e-9).all()


@pytest.mark.parametrize(("top_p", "kept"), [(0.7, {0, 1}), (1.0, {0, 1, 2, 3}), (0.4, {0}), (0.85, {0, 1, 2})])
def test_the_token_that_crosses_top_p_stays_in(top_p, kept):
    logits = torch.log(torch.tensor([[0.5, 0.3, 0.15, 0.05]])).repeat(1000, 1)
    assert set(draw(logits, top_p=top_p).tolist()) == kept


def test_equally_probable_tokens_are_in_or_out_together():
    assert set(draw(torch.zeros(500, 4), top_p=0.1).tolist()) == {0, 1, 2, 3}


def test_temperature_zero_takes_the_likeliest():
    logits = torch.tensor([[1.0, 1.2, 0.9]]).repeat(50, 1)
    assert set(draw(logits, temperature=0.0).tolist()) == {1}
    assert set(draw(logits, temperature=0.001).tolist()) == {1}


def test_no_token_without_probability_is_drawn():
    """Also at the ends: tokens of weight only in the last places of a vocabulary that fills no whole block."""
    logits = torch.full((2000, 131), -torch.inf)
    logits[:, [64, 130]] = 0.0
    assert set(draw(logits).tolist()) == {64, 130}
    edges = torch.tensor([0.0, 1 - 2**-53], dtype=torch.float64)
    assert draw_tokens(logits[:2], edges, None, Sampling(1.0, 1.0)).tolist() == [64, 130]


def test_a_second_attempt_moves_no_other_number():
    early, late = RandomStream("a", seed=0, count=5), RandomStream("a", seed=0, count=5)
    early.attempt(3)
    assert (early.attempt(0) == late.attempt(0)).all()
    assert (early.attempt(3) == late.attempt(3)).all()
    assert len({tuple(early.attempt(number)) for number in range(4)}) == 4


def test_seed_and_name_change_the_numbers():
    first = RandomStream("a", seed=0, count=5).attempt(0)
    assert (RandomStream("a", seed=1, count=5).attempt(0) != first).all()
    assert (RandomStream("b", seed=0, count=5).attempt(0) != first).all()


@pytest.mark.parametrize(("temperature", "top_p"), [(0.0, 1.0), (1.0, 1.0), (0.7, 0.9)])
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_row_without_a_distribution_has_no_token_and_leaves_the_others_alone(temperature, top_p, value):
    logits = torch.randn(5, 130, generator=torch.Generator().manual_seed(0))
    whole = draw(logits, temperature=temperature, top_p=top_p)
    logits[2, 77] = value
    torn = draw(logits, temperature=temperature, top_p=top_p)
    assert torn[2] == NO_TOKEN
    assert torn[[0, 1, 3, 4]].equal(whole[[0, 1, 3, 4]])
    assert (whole >= 0).all()
