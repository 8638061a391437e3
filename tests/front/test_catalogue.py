"""Labels and directions of a front's metrics."""

import pytest

from alignlab.front.catalogue import meaning


@pytest.mark.parametrize(
    ("metric", "better", "said"),
    [
        ("better_gain_at_equal_length", 1, "gain over the reference at equal length"),
        ("better_gain", 1, "gain over the reference"),
        ("safer_margin_length", 0, "correlation of margin and difference in length"),
        ("safer_longer_chosen", 0, "preferred response is the longer one"),
        ("exact_ess", 1, "effective samples"),
        ("plain_length", -1, "length (tokens)"),
        ("kl_per_token", -1, "nats/token"),
        ("kl_per_token_change", -1, "change from the reference"),
        ("safer_margin", 1, "reward margin"),
        ("who_knows", 0, "who knows"),
    ],
)
def test_what_a_metric_means(metric, better, said):
    """A gain at equal length is no length: less of it is not better."""
    found = meaning(metric)
    assert found.better == better
    assert said in found.label


def test_an_axis_is_better_higher():
    assert [meaning("safe_length", is_axis=one).better for one in (False, True)] == [-1, 1]
