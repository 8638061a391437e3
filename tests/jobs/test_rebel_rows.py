"""What rebel makes of scored pairs before it trains."""

import itertools

import pytest
import torch

from alignlab.data.records import RankedRow, all_pairs
from alignlab.data.worlds import toy
from alignlab.engine.scoring.forward import BatchLayout, make_batch
from alignlab.engine.scoring.rows import encode_pairs
from alignlab.jobs import rebel
from alignlab.jobs.preference import tilt_of, training_table

WORDS = toy.VOCABULARY[5:8]
ROW = RankedRow("How?", (*WORDS, WORDS[0]), {"better": (None,) * 4})


@pytest.fixture
def pairs(base):
    return encode_pairs(all_pairs([ROW]), base.encoder, max_length=None)


def test_any_two_different_responses_are_a_pair_without_labels():
    found = {frozenset((pair.chosen, pair.rejected)) for pair in all_pairs([ROW])}
    assert found == {frozenset(two) for two in itertools.combinations(WORDS, 2)}
    assert len({pair.set for pair in all_pairs([ROW])}) == 1
    assert len({pair.id for pair in all_pairs([ROW])}) == 3


def test_the_higher_weighted_reward_comes_first_and_keeps_its_scores(pairs):
    scores_B = torch.tensor([1.0, 5.0, 2.0, 3.0, 4.0, 2.0])
    turned, order_B = rebel.higher_first(pairs, scores_B)
    assert scores_B[order_B].tolist() == [3.0, 5.0, 2.0, 1.0, 4.0, 2.0]
    assert turned.pairs[0].chosen == pairs.pairs[0].rejected
    assert turned.pairs[1:] == pairs.pairs[1:]


def test_w_1_is_a_run_that_never_heard_of_the_other(pairs):
    reference_B, one_B, other_B = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    alone = training_table(pairs, reference_B, tilt_of({"better": one_B}, {"better": 1.0}, 0.5))
    both = training_table(pairs, reference_B, tilt_of({"better": one_B, "safer": other_B}, {"better": 1.0}, 0.5))
    assert alone.to_dict() == both.to_dict()
    weighed = training_table(
        pairs, reference_B, tilt_of({"better": one_B, "safer": other_B}, {"better": 0.9, "safer": 0.1}, 0.5)
    )
    assert weighed.to_dict() != alone.to_dict()


def test_exact_opposites_are_said(monkeypatch):
    said = []
    monkeypatch.setattr(rebel, "say", said.append)
    scores_B = torch.tensor([1.0, 5.0, 2.0, 3.0, 4.0, 2.5])
    rebel._say_opposites({"better": scores_B, "safer": 3 - 2 * scores_B})
    assert len(said) == 1
    assert "better and safer are exact opposites" in said[0]
    assert "straight line" in said[0]
    rebel._say_opposites({"better": scores_B, "safer": -scores_B + torch.tensor([0.0, 0, 0, 1, 0, 0])})
    assert len(said) == 1, "control: a conflict that is not exact"


def test_the_optimums_distance_is_that_of_a_gaussian():
    """Rewards of deviation s: KL(pi_ref exp(r/beta) || pi_ref) of a Gaussian is s^2 / (2 beta^2)."""
    total_B = 0.6 * torch.randn(40_000, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert rebel.optimum_nats(total_B, 0.3) == pytest.approx(0.6**2 / (2 * 0.3**2), rel=0.03)


def test_beta_is_called_small_by_the_optimum_at_equal_weights(monkeypatch):
    said = []
    monkeypatch.setattr(rebel, "say", said.append)
    better_B = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    for other_B, warned in ((-0.9 * better_B, False), (better_B, True)):
        columns = {"better": better_B, "safer": other_B}
        total_B, equal_B = (rebel.weighted_sum(columns, w) for w in ({"better": 0.9, "safer": 0.1}, None))
        assert rebel._say_distance(total_B, equal_B, 0.1) > rebel.FAR
        assert said.pop().startswith("warning: ") is warned


def test_an_end_of_w_says_nothing_of_equal_weights(monkeypatch):
    """There one objective alone is scored: its optimum may be far, and beta right for the mixtures."""
    said = []
    monkeypatch.setattr(rebel, "say", said.append)
    far_B = torch.randn(1000, generator=torch.Generator().manual_seed(0))
    assert rebel._say_distance(far_B, None, 0.1) > rebel.FAR
    assert "warning" not in said[0]
    assert "equal" not in said[0]


def test_identical_rows_of_a_padded_batch_are_computed_once(pairs):
    rows = pairs.responses()
    padded = make_batch(rows, BatchLayout.PADDED)
    assert padded.ids_RL.shape[0] == 3 < len(rows)
    assert padded.scored_idx_BT.shape[0] == len(rows)
